import { useQuery, useQueryClient } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { ArchiveIcon, IdCardLanyardIcon, LayersIcon } from 'lucide-react';
import { type ReactNode, useState } from 'react';
import { ADDRESSES } from '../../addresses';
import { archiveFlag, restoreFlag } from '../../api/commands';
import { keys } from '../../api/keys';
import { toApiError } from '../../api/problem';
import { flagQuery } from '../../api/queries';
import { type AnyFlag, type Flag, isReadable, type UnreadableFlag } from '../../api/types';
import { useLock } from '../../session/session';
import { PageHead } from '../../shell/PageHead';
import { PageLink } from '../../shell/PageLink';
import { Tab, Tabs } from '../../shell/Tabs';
import { Ago, DateOnly, When } from '../../time/When';
import { Button } from '../../ui/Button';
import { Switch } from '../../ui/Field';
import { Dialog } from '../../ui/Overlay';
import { countOf } from '../../ui/Pager';
import { EmptyState, ErrorState, Notice, SkeletonRows } from '../../ui/States';
import { showDone, showError } from '../../ui/toast';
import { LayerChip, TypeGlyph } from '../../values/parts';
import { typeLabel } from '../../values/values';
import { UserOverridesPanel } from '../overrides/UserOverridesPanel';
import { FlagOverview } from './FlagOverview';
import { AddOverrideButton } from './FlagTabs';
import styles from './flags.module.css';
import { SwitchSheet } from './SwitchSheet';

const overviewRoute = getRouteApi(ADDRESSES.flag);
const overridesRoute = getRouteApi(ADDRESSES.flagOverrides);

/** Page with the evaluation order, targeting rules and pending changes of one flag. */
export function FlagOverviewPage() {
  const { flag: name } = overviewRoute.useParams();
  return (
    <FlagFrame name={name}>
      {(flag) => (isReadable(flag) ? <FlagOverview flag={flag} /> : <UnreadableDetails flag={flag} />)}
    </FlagFrame>
  );
}

/** Page with the overrides of one flag. */
export function FlagOverridesPage() {
  const { flag: name } = overridesRoute.useParams();
  const search = overridesRoute.useSearch();
  const navigate = overridesRoute.useNavigate();
  return (
    <FlagFrame name={name}>
      {(flag) => (
        <UserOverridesPanel
          key={name}
          scope={{ kind: 'flag', flag: name }}
          addLock={isReadable(flag) ? null : 'The flag cannot be read.'}
          search={search}
          onSearch={(change, replace) =>
            void navigate({ search: (previous) => ({ ...previous, ...change }), replace: replace ?? false })
          }
        />
      )}
    </FlagFrame>
  );
}

function FlagFrame({ name, children }: { readonly name: string; readonly children: (flag: AnyFlag) => ReactNode }) {
  const query = useQuery(flagQuery(name));
  const flag = query.data?.resource;
  const back = { to: ADDRESSES.flags, label: 'Flags' } as const;
  if (!flag) {
    const isMissing = query.isError && toApiError(query.error).status === 404;
    return (
      <>
        <PageHead title={name} back={back} />
        {query.isPending ? <SkeletonRows /> : null}
        {isMissing ? (
          <EmptyState
            title={`There is no flag ${name}`}
            actions={
              <PageLink to={ADDRESSES.flags} search={{ search: name }}>
                Search for it
              </PageLink>
            }
          >
            It may have been deleted or renamed. The audit log lists deleted flags.
          </EmptyState>
        ) : null}
        {query.isError && !isMissing ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
      </>
    );
  }
  return (
    <>
      <PageHead
        title={name}
        back={back}
        actions={
          <>
            <ArchiveButton flag={flag} />
            {flag.archived_at || !isReadable(flag) ? null : <AddOverrideButton flag={name} />}
          </>
        }
      />
      {isReadable(flag) ? <FlagTitle flag={flag} /> : <UnreadableTitle flag={flag} />}
      <Tabs label={name}>
        {isReadable(flag) ? (
          <Tab
            to={ADDRESSES.flag}
            params={{ flag: name }}
            activeOptions={{ exact: true, includeSearch: false }}
            Icon={LayersIcon}
          >
            Overview
          </Tab>
        ) : null}
        <Tab
          to={ADDRESSES.flagOverrides}
          params={{ flag: name }}
          activeOptions={{ includeSearch: false }}
          Icon={IdCardLanyardIcon}
          count={flag.override_count.toLocaleString('en-GB')}
        >
          User Overrides
        </Tab>
      </Tabs>
      {children(flag)}
    </>
  );
}

function FlagTitle({ flag }: { readonly flag: Flag }) {
  const lockedReason = useLock('changeFlags');
  const [isSwitching, setIsSwitching] = useState(false);
  const isOn = flag.effective.enabled;
  return (
    <>
      <div className={styles.title}>
        <h1>{flag.name}</h1>
        <span className={styles.type}>
          <TypeGlyph type={flag.flag_type} />
          <span aria-hidden>{typeLabel(flag.flag_type)}</span>
        </span>
        {flag.archived_at ? <LayerChip layer="archived" /> : null}
        <span className={styles.switchLine}>
          <Switch
            label={`${flag.name} is on`}
            isOn={isOn}
            lockedReason={flag.archived_at ? 'The flag is archived.' : lockedReason}
            onClick={() => setIsSwitching(true)}
          />
          <span aria-hidden>{isOn ? 'On' : 'Off'}</span>
        </span>
      </div>
      <p className={styles.about}>
        {flag.description ?? 'No description'}
        {flag.archived_at ? (
          <>
            {' · Archived '}
            <When instant={flag.archived_at} />. No user gets a value.
          </>
        ) : null}
      </p>
      {isSwitching ? <SwitchSheet flagName={flag.name} onClose={() => setIsSwitching(false)} /> : null}
    </>
  );
}

/** Title of a flag whose definition the server cannot read, and the reason. */
function UnreadableTitle({ flag }: { readonly flag: UnreadableFlag }) {
  return (
    <>
      <div className={styles.title}>
        <h1>{flag.name}</h1>
        {flag.flag_type ? (
          <span className={styles.type}>
            <TypeGlyph type={flag.flag_type} />
            <span aria-hidden>{typeLabel(flag.flag_type)}</span>
          </span>
        ) : null}
        <LayerChip layer="invalid" />
        {flag.archived_at ? <LayerChip layer="archived" /> : null}
      </div>
      <div className={styles.unreadable}>
        <Notice kind="error" title="The server cannot read the definition of this flag">
          <p className={styles.reason}>{flag.unreadable}</p>
          <p>
            {flag.archived_at ? (
              <>
                The flag was archived <When instant={flag.archived_at} />. No user gets a value, and the flag cannot be
                restored until its definition can be read.
              </>
            ) : (
              'Only users with an active override get a value. Change the flag with the server version that wrote it, or archive it.'
            )}
          </p>
        </Notice>
      </div>
    </>
  );
}

/** The parts of an unreadable flag that the server can read. */
function UnreadableDetails({ flag }: { readonly flag: UnreadableFlag }) {
  return (
    <section className={styles.unreadable} aria-labelledby="details">
      <h2 id="details">Details</h2>
      <dl className={styles.properties}>
        <dt>Type</dt>
        <dd>{flag.flag_type ? typeLabel(flag.flag_type) : 'Unknown'}</dd>
        <dt>Visible to</dt>
        <dd>{flag.client_visible ? 'Clients and servers' : 'Servers only'}</dd>
        <dt>Created</dt>
        <dd>{flag.created_at ? <DateOnly instant={flag.created_at} /> : 'Unknown'}</dd>
        <dt>Changed</dt>
        <dd>{flag.updated_at ? <Ago instant={flag.updated_at} /> : 'Unknown'}</dd>
      </dl>
    </section>
  );
}

function ArchiveButton({ flag }: { readonly flag: AnyFlag }) {
  const queryClient = useQueryClient();
  const lockedReason = useLock('changeFlags');
  const [isAsking, setIsAsking] = useState(false);
  const refresh = () => void queryClient.invalidateQueries({ queryKey: keys.flags });
  const archive = async () => {
    setIsAsking(false);
    try {
      await archiveFlag(flag.name);
      refresh();
      const undo = async () => {
        await restoreFlag(flag.name);
        refresh();
      };
      if (isReadable(flag)) showDone(`${flag.name} is archived`, undo);
      else showDone(`${flag.name} is archived`);
    } catch (error) {
      showError(error);
    }
  };
  const restore = async () => {
    try {
      await restoreFlag(flag.name);
      refresh();
      showDone(`${flag.name} is restored`);
    } catch (error) {
      showError(error);
    }
  };
  if (flag.archived_at) {
    return isReadable(flag) ? (
      <Button lockedReason={lockedReason} onClick={() => void restore()}>
        Restore
      </Button>
    ) : null;
  }
  return (
    <>
      <Button
        className={isReadable(flag) ? 'wide-only' : ''}
        variant="quiet"
        lockedReason={lockedReason}
        onClick={() => setIsAsking(true)}
      >
        <ArchiveIcon size={16} aria-hidden />
        Archive
      </Button>
      <Dialog
        isOpen={isAsking}
        onClose={() => setIsAsking(false)}
        title={`Archive ${flag.name}?`}
        footer={
          <>
            <Button onClick={() => setIsAsking(false)}>Cancel</Button>
            <Button variant="primary" onClick={() => void archive()}>
              Archive
            </Button>
          </>
        }
      >
        <Notice title="No user will get a value of this flag">
          {isReadable(flag) ? (
            <>
              This includes {countOf(flag.override_count, 'user')} with an override and{' '}
              {countOf(flag.pending_change_count, 'pending scheduled change')}. You can restore the flag later.
            </>
          ) : (
            <>
              This includes {countOf(flag.override_count, 'user')} with an override. The flag cannot be restored until
              its definition can be read.
            </>
          )}
        </Notice>
      </Dialog>
    </>
  );
}
