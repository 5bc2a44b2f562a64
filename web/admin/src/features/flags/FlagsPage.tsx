import { useQuery } from '@tanstack/react-query';
import { getRouteApi, Link, useNavigate } from '@tanstack/react-router';
import { ArrowUpIcon, FlagIcon } from 'lucide-react';
import { useState } from 'react';
import { ADDRESSES } from '../../addresses';
import { flagsQuery } from '../../api/queries';
import { type AnyFlag, type Flag, isReadable, type UnreadableFlag } from '../../api/types';
import { useChangeMarks } from '../../live/marks';
import { usePreferences } from '../../preferences/preferences';
import { useLock } from '../../session/session';
import { Bar, FIND_CLASS } from '../../shell/Tabs';
import { Ago, useFormatTime } from '../../time/When';
import { Button } from '../../ui/Button';
import { type Column, DataTable, TableArea } from '../../ui/DataTable';
import { SearchField, Select, Switch } from '../../ui/Field';
import { formatTotal, Pager } from '../../ui/Pager';
import { EmptyState, ErrorState, ProgressBar, SkeletonRows } from '../../ui/States';
import { usePages } from '../../ui/usePages';
import { CountBadge, FlagLabel, LayerChip } from '../../values/parts';
import { EffectiveServe } from '../../values/Served';
import { FeatureFlagsHead } from './FlagTabs';
import styles from './flags.module.css';
import { SwitchSheet } from './SwitchSheet';

const route = getRouteApi(ADDRESSES.flags);

/** Options of the archive filter. Without a choice, the list shows flags that are not archived. */
const ARCHIVE_FILTERS = [
  ['false', 'Not archived'],
  ['true', 'Archived'],
] as const;

export function FlagsPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const openFlag = useNavigate();
  const { letterShortcuts } = usePreferences();
  const marks = useChangeMarks();
  const [switching, setSwitching] = useState<string | null>(null);
  const query = useQuery(
    flagsQuery({
      archived: search.archived === 'true',
      ...(search.search && { search: search.search }),
      ...(search.tag && { tag: search.tag }),
      ...(search.sort && { sort: search.sort }),
      ...(search.cursor && { cursor: search.cursor }),
    }),
  );
  const pages = usePages(search.cursor, (cursor) => void navigate({ search: (previous) => ({ ...previous, cursor }) }));
  const filter = (change: Partial<typeof search>) =>
    void navigate({ search: (previous) => ({ ...previous, ...change, cursor: undefined }), replace: true });
  const isFiltered = Boolean(search.search || search.tag || search.archived);
  const columns = useColumns({
    sort: search.sort,
    onSort: (sort) => filter({ sort }),
    onSwitch: setSwitching,
  });

  return (
    <>
      <FeatureFlagsHead />
      <Bar>
        <SearchField
          className={FIND_CLASS}
          label="Search flags by name or description"
          placeholder="Name or description"
          value={search.search ?? ''}
          onChange={(text) => filter({ search: text || undefined })}
        />
        <TagFilter flags={query.data?.items ?? []} value={search.tag} onChange={(tag) => filter({ tag })} />
        <Select
          aria-label="Archive state"
          value={search.archived ?? 'false'}
          onChange={(event) => filter({ archived: event.target.value === 'true' ? 'true' : undefined })}
        >
          {ARCHIVE_FILTERS.map(([value, label]) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </Select>
      </Bar>
      <TableArea busy={query.isFetching}>
        {query.isFetching && query.data ? <ProgressBar /> : null}
        {query.isPending ? <SkeletonRows /> : null}
        {query.isError && !query.data ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
        {query.data?.items.length === 0 ? (
          <EmptyFlags isFiltered={isFiltered} onClear={() => void navigate({ search: {} })} />
        ) : null}
        {query.data && query.data.items.length > 0 ? (
          <DataTable
            className={styles.table}
            label="Flags"
            columns={columns}
            rows={query.data.items}
            rowId={(flag) => flag.name}
            onOpen={(flag) => void openFlag({ to: ADDRESSES.flag, params: { flag: flag.name } })}
            isChanged={(flag) => marks.has(flag.name)}
            letterShortcuts={letterShortcuts}
          />
        ) : null}
      </TableArea>
      <Pager
        {...pages}
        summary={`${formatTotal(query.data)} flags${isFiltered ? ' match' : ''}`}
        nextCursor={query.data?.next_cursor ?? null}
      />
      {switching ? <SwitchSheet flagName={switching} onClose={() => setSwitching(null)} /> : null}
    </>
  );
}

function EmptyFlags({ isFiltered, onClear }: { readonly isFiltered: boolean; readonly onClear: () => void }) {
  if (isFiltered) {
    return (
      <EmptyState title="No flag matches these filters" actions={<Button onClick={onClear}>Clear filters</Button>} />
    );
  }
  return (
    <EmptyState icon={<FlagIcon size={24} aria-hidden />} title="There are no flags yet">
      A flag is a value that an application reads and that you can change here. Create the first one through the API.
    </EmptyState>
  );
}

/** Tag filter. The API has no list of tags, so the filter offers the tags of the flags on this page. */
function TagFilter(props: {
  readonly flags: readonly AnyFlag[];
  readonly value: string | undefined;
  readonly onChange: (tag: string | undefined) => void;
}) {
  const tags = [
    ...new Set([...props.flags.filter(isReadable).flatMap((flag) => flag.tags), ...(props.value ? [props.value] : [])]),
  ].sort();
  return (
    <Select
      aria-label="Tag"
      value={props.value ?? ''}
      onChange={(event) => props.onChange(event.target.value || undefined)}
    >
      <option value="">Any tag</option>
      {tags.map((tag) => (
        <option key={tag} value={tag}>
          {tag}
        </option>
      ))}
    </Select>
  );
}

interface ColumnOptions {
  readonly sort: 'name' | '-updated_at' | undefined;
  readonly onSort: (sort: 'name' | '-updated_at' | undefined) => void;
  readonly onSwitch: (flag: string) => void;
}

function useColumns({ sort, onSort, onSwitch }: ColumnOptions): Column<AnyFlag>[] {
  const lockedReason = useLock('changeFlags');
  return [
    {
      id: 'on',
      head: 'On',
      className: styles.on,
      cell: (flag) =>
        isReadable(flag) ? (
          <Switch
            label={`${flag.name} is on`}
            isOn={flag.effective.enabled}
            lockedReason={flag.archived_at ? 'The flag is archived.' : lockedReason}
            onClick={() => onSwitch(flag.name)}
          />
        ) : (
          <None text="unknown" />
        ),
    },
    {
      id: 'name',
      head: (
        <SortButton isOn={sort !== '-updated_at'} onClick={() => onSort(undefined)}>
          Name
        </SortButton>
      ),
      className: styles.name,
      cell: (flag) => (
        <FlagLabel name={flag.name} type={flag.flag_type}>
          <Link to={ADDRESSES.flag} params={{ flag: flag.name }}>
            {flag.name}
          </Link>
        </FlagLabel>
      ),
    },
    {
      id: 'serve',
      head: 'Served by default',
      className: styles.serveCell,
      cell: (flag) => (isReadable(flag) ? <ServedCell flag={flag} /> : <UnreadableCell flag={flag} />),
    },
    {
      id: 'rules',
      head: 'Rules',
      className: `${styles.number} ${styles.rules}`,
      cell: (flag) =>
        !isReadable(flag) ? (
          <None text="unknown" />
        ) : flag.targeting_rules.length === 0 ? (
          <None />
        ) : (
          <CountBadge layer="targeting_rule" count={flag.targeting_rules.length} noun="rules" />
        ),
    },
    {
      id: 'overrides',
      head: 'Overrides',
      className: `${styles.number} ${styles.overrides}`,
      cell: (flag) =>
        flag.override_count === 0 ? (
          <None />
        ) : (
          <Link className={styles.badgeLink} to={ADDRESSES.flagOverrides} params={{ flag: flag.name }}>
            <CountBadge layer="override" count={flag.override_count} noun={`overrides of ${flag.name}`} />
          </Link>
        ),
    },
    {
      id: 'scheduled',
      head: 'Scheduled',
      className: `${styles.number} ${styles.scheduled}`,
      cell: (flag) =>
        !isReadable(flag) ? (
          <None text="unknown" />
        ) : flag.pending_change_count === 0 ? (
          <None />
        ) : (
          <Link className={styles.badgeLink} to={ADDRESSES.flag} params={{ flag: flag.name }} hash="next-changes">
            <CountBadge layer="scheduled_change" count={flag.pending_change_count} noun={`changes of ${flag.name}`} />
          </Link>
        ),
    },
    {
      id: 'changed',
      head: (
        <SortButton isOn={sort === '-updated_at'} onClick={() => onSort('-updated_at')}>
          Changed
        </SortButton>
      ),
      className: styles.changed,
      cell: (flag) =>
        flag.updated_at === null ? (
          <None text="unknown" />
        ) : (
          <span className="muted">
            <Ago instant={flag.updated_at} />
          </span>
        ),
    },
  ];
}

function None({ text = 'none' }: { readonly text?: 'none' | 'unknown' }) {
  return (
    <span className={`muted ${styles.none}`}>
      <span aria-hidden>–</span>
      <span className="visually-hidden">{text}</span>
    </span>
  );
}

function SortButton(props: { readonly isOn: boolean; readonly onClick: () => void; readonly children: string }) {
  return (
    <button type="button" onClick={props.onClick} aria-pressed={props.isOn} title={`Sort by ${props.children}`}>
      {props.children} {props.isOn ? <ArrowUpIcon size={12} aria-hidden /> : null}
    </button>
  );
}

/** Value for users without an override or matching rule, and whether a scheduled change set it. */
function ServedCell({ flag }: { readonly flag: Flag }) {
  const formatTime = useFormatTime();
  if (flag.archived_at) return <span className="muted">Archived: no user gets a value</span>;
  return (
    <span className={styles.serve}>
      <EffectiveServe flag={flag} />
      {flag.effective.enabled ? null : <LayerChip layer="disabled" />}
      {flag.effective.scheduled_change_id ? (
        <span
          className={styles.wideChip}
          title={`Set by a scheduled change; last set manually ${formatTime(flag.default_set_at)}`}
        >
          <LayerChip layer="scheduled_change" />
        </span>
      ) : null}
    </span>
  );
}

/** Reason why the definition of a flag cannot be read, in place of what the flag serves. */
function UnreadableCell({ flag }: { readonly flag: UnreadableFlag }) {
  return (
    <span className={styles.serve}>
      <LayerChip layer="invalid" />
      {flag.archived_at ? <LayerChip layer="archived" /> : null}
      <span className="muted cut" title={flag.unreadable}>
        {flag.unreadable}
      </span>
    </span>
  );
}
