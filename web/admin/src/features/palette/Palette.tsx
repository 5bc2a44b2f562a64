import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import {
  CalendarClockIcon,
  CircleUserIcon,
  FlagIcon,
  IdCardLanyardIcon,
  KeyboardIcon,
  type LucideIcon,
  ToggleRightIcon,
  UsersIcon,
} from 'lucide-react';
import { type ReactNode, useState } from 'react';
import { ADDRESSES } from '../../addresses';
import { flagsQuery, usersQuery } from '../../api/queries';
import { type AnyFlag, isReadable, type User } from '../../api/types';
import { PersonLabel } from '../../people/PersonLabel';
import { useHasPermission } from '../../session/session';
import { Dialog } from '../../ui/Overlay';
import { Marked, SearchList } from '../../ui/SearchList';
import { CountBadge, FlagLabel, LayerChip } from '../../values/parts';
import { useEditorLink } from '../overrides/editorAddress';
import { useDebounced } from '../overrides/UserPicker';
import styles from './palette.module.css';

const SEARCH_DELAY = 150;
/** Maximum number of flags, and of users, in the results. */
const MAX_RESULTS = 6;

type Entry =
  | { readonly kind: 'action'; readonly label: string; readonly Icon: LucideIcon; readonly run: () => void }
  | { readonly kind: 'flag'; readonly flag: AnyFlag }
  | { readonly kind: 'user'; readonly user: User };

const GROUPS: Record<Entry['kind'], string> = { action: 'Actions and pages', flag: 'Flags', user: 'Users' };

interface PaletteProps {
  readonly onClose: () => void;
  readonly onShowKeys: () => void;
}

/** Command palette: finds flags, users, pages and actions. */
export default function Palette({ onClose, onShowKeys }: PaletteProps) {
  const [text, setText] = useState('');
  const term = useDebounced(text.trim(), SEARCH_DELAY);
  const navigate = useNavigate();
  const actions = useActions(onClose, onShowKeys);
  const flags = useQuery({ ...flagsQuery({ search: term, limit: MAX_RESULTS }), enabled: term !== '' });
  const users = useQuery({ ...usersQuery({ search: term, limit: MAX_RESULTS }), enabled: term !== '' });
  const isSearching = term !== text.trim() || flags.isFetching || users.isFetching;
  const entries: Entry[] = [
    ...actions.filter(({ label }) => label.toLowerCase().includes(text.trim().toLowerCase())),
    ...(term === '' ? [] : (flags.data?.items ?? []).map((flag): Entry => ({ kind: 'flag', flag }))),
    ...(term === '' ? [] : (users.data?.items ?? []).map((user): Entry => ({ kind: 'user', user }))),
  ];
  const choose = (entry: Entry) => {
    onClose();
    if (entry.kind === 'action') entry.run();
    else if (entry.kind === 'flag') void navigate({ to: ADDRESSES.flag, params: { flag: entry.flag.name } });
    else void navigate({ to: ADDRESSES.user, params: { id: entry.user.id } });
  };
  return (
    <Dialog isOpen onClose={onClose} title={null} wide bare>
      <div className={styles.box}>
        <SearchList
          label="Search flags, users and actions"
          placeholder="Search flags, users and actions"
          text={text}
          onTextChange={setText}
          items={entries}
          itemId={entryId}
          groupOf={({ kind }) => GROUPS[kind]}
          onChoose={choose}
          autoFocus
          isPlain
          inputClassName={styles.input}
          empty={isSearching ? 'Searching…' : `Nothing matches “${text.trim()}”.`}
          renderItem={(entry) => <EntryLabel entry={entry} term={term} />}
        />
      </div>
    </Dialog>
  );
}

function entryId(entry: Entry): string {
  if (entry.kind === 'action') return `action-${entry.label}`;
  return entry.kind === 'flag' ? `flag-${entry.flag.name}` : `user-${entry.user.id}`;
}

function EntryLabel({ entry, term }: { readonly entry: Entry; readonly term: string }): ReactNode {
  switch (entry.kind) {
    case 'action':
      return (
        <>
          <entry.Icon size={16} aria-hidden />
          {entry.label}
        </>
      );
    case 'flag':
      return (
        <>
          <FlagLabel name={entry.flag.name} type={entry.flag.flag_type}>
            <Marked text={entry.flag.name} part={term} />
          </FlagLabel>
          {isReadable(entry.flag) ? null : (
            <>
              <span className="grow" />
              <LayerChip layer="invalid" />
            </>
          )}
        </>
      );
    case 'user':
      return (
        <>
          <CircleUserIcon size={16} aria-hidden />
          <PersonLabel person={entry.user} mark={term} />
          <span className="grow" />
          {entry.user.override_count > 0 ? (
            <CountBadge layer="override" count={entry.user.override_count} noun="overrides" />
          ) : null}
        </>
      );
  }
}

type Action = Extract<Entry, { kind: 'action' }>;

function useActions(onClose: () => void, onShowKeys: () => void): Action[] {
  const navigate = useNavigate();
  const { openNew } = useEditorLink();
  const canOverride = useHasPermission('changeOverrides');
  const pages: readonly (readonly [string, LucideIcon, (typeof ADDRESSES)[keyof typeof ADDRESSES]])[] = [
    ['Flags', FlagIcon, ADDRESSES.flags],
    ['Scheduled Changes', CalendarClockIcon, ADDRESSES.scheduledChanges],
    ['User Overrides', IdCardLanyardIcon, ADDRESSES.userOverrides],
    ['Users', UsersIcon, ADDRESSES.users],
    ['My flags', ToggleRightIcon, ADDRESSES.myFlags],
    ['Profile', CircleUserIcon, ADDRESSES.profile],
  ];
  return [
    ...(canOverride
      ? [
          {
            kind: 'action',
            label: 'Override a flag for a user…',
            Icon: IdCardLanyardIcon,
            run: () => openNew(),
          } as const,
        ]
      : []),
    ...pages.map(
      ([label, Icon, to]): Action => ({
        kind: 'action',
        label,
        Icon,
        run: () => void navigate({ to: to as '/flags' }),
      }),
    ),
    {
      kind: 'action',
      label: 'Keyboard shortcuts',
      Icon: KeyboardIcon,
      run: () => {
        onClose();
        onShowKeys();
      },
    },
  ];
}
