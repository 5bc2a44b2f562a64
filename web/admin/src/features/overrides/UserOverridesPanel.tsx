import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { ArrowUpIcon, IdCardLanyardIcon, PencilIcon } from 'lucide-react';
import { type ReactNode, useMemo, useState } from 'react';
import { ADDRESSES } from '../../addresses';
import { overridesQuery } from '../../api/queries';
import type { UserOverride } from '../../api/types';
import { type ChangeMark, useChangeMarks } from '../../live/marks';
import { ActorName, UserName } from '../../people/PersonLabel';
import { usePreferences, useZone } from '../../preferences/preferences';
import type { OverridesSearch } from '../../searchParams';
import { useLock } from '../../session/session';
import { serverNow, useServerTime } from '../../time/clock';
import { zoneAbbreviation } from '../../time/format';
import { When } from '../../time/When';
import { Button } from '../../ui/Button';
import { type Column, DataTable, TableArea } from '../../ui/DataTable';
import { Checkbox } from '../../ui/Field';
import { formatTotal, Pager } from '../../ui/Pager';
import { EmptyState, ErrorState, ProgressBar, SkeletonRows } from '../../ui/States';
import { usePages } from '../../ui/usePages';
import { StatusMark, Value } from '../../values/parts';
import { BulkBar } from '../bulk/BulkBar';
import { isEmpty, isSelected, NOTHING, pageState, toggle, togglePage } from '../bulk/selection';
import { FlagLink } from '../flags/FlagLink';
import { useEditorLink } from './editorAddress';
import { useHeldRows } from './heldRows';
import { OverrideFilters } from './OverrideFilters';
import { filterOf, isFiltered, listQuery, type Scope, statusAt } from './overrideQuery';
import styles from './overrides.module.css';
import { RowActions } from './RowActions';

interface PanelProps {
  readonly scope: Scope;
  readonly search: OverridesSearch;
  /** Why no override can be added, although the user has the permission. */
  readonly addLock?: string | null;
  /** Changes filters in the URL. With `replace`, the Back button skips the previous filters. */
  readonly onSearch: (change: Partial<OverridesSearch>, replace?: boolean) => void;
}

const FILTER_RESET: OverridesSearch = {
  search: undefined,
  flag_name: undefined,
  user_id: undefined,
  status: undefined,
  ends_within: undefined,
  finding: undefined,
  cursor: undefined,
};

/** List of the overrides of all users, one flag or one user, with filters, selection and bulk changes. */
export function UserOverridesPanel({ scope, search, addLock, onSearch }: PanelProps) {
  const minute = useServerTime(60_000);
  const marks = useChangeMarks();
  const { letterShortcuts } = usePreferences();
  const { openExisting, openNew } = useEditorLink();
  const lockedReason = useLock('changeOverrides');
  const [selection, setSelection] = useState(NOTHING);
  const [hasPointer, setHasPointer] = useState(false);
  const parameters = useMemo(() => listQuery(search, scope, minute), [search, scope, minute]);
  const query = useQuery(overridesQuery(parameters));
  const pages = usePages(search.cursor, (cursor) => onSearch({ cursor }));
  const filter = (change: Partial<OverridesSearch>) => onSearch({ ...change, cursor: undefined }, true);

  const isHeld = hasPointer || !isEmpty(selection) || search.cursor !== undefined;
  const held = useHeldRows(
    query.data?.items ?? [],
    (row) => row.id,
    isHeld && !query.isPlaceholderData,
    JSON.stringify(search),
    (row) => marks.get(row.id)?.isDeleted === true,
  );
  const rows = held.rows;
  const pageIds = rows.map((row) => row.id);
  const columns = useColumns({
    scope,
    marks,
    selectHead: (
      <Checkbox
        aria-label="Select all on this page"
        checked={pageState(selection, pageIds) === 'all' && pageIds.length > 0}
        indeterminate={pageState(selection, pageIds) === 'some'}
        onChange={() => setSelection(togglePage(selection, pageIds))}
      />
    ),
    selectCell: (row) => (
      <Checkbox
        aria-label={`Select ${row.user_label}, ${row.flag_name}`}
        checked={isSelected(selection, row.id)}
        onChange={() => {}}
        onClick={(event) => setSelection(toggle(selection, row.id, pageIds, event.shiftKey))}
      />
    ),
  });
  const matching = filterOf(search, scope, minute);

  return (
    <>
      <OverrideFilters
        scope={scope}
        search={search}
        total={formatTotal(query.data)}
        onFilter={filter}
        end={
          held.waiting > 0 ? (
            <Button small variant="quiet" onClick={held.showNew}>
              <ArrowUpIcon size={12} aria-hidden />
              {held.waiting} new · Show
            </Button>
          ) : null
        }
      />
      <TableArea busy={query.isFetching}>
        {query.isFetching && query.data ? <ProgressBar /> : null}
        {query.isPending ? <SkeletonRows /> : null}
        {query.isError && !query.data ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
        {query.data && rows.length === 0 ? (
          <EmptyOverrides
            search={search}
            nextCursor={query.data.next_cursor}
            onClear={() => onSearch(FILTER_RESET)}
            onMore={pages.onNext}
            addButton={
              <Button
                variant="primary"
                lockedReason={lockedReason ?? addLock}
                onClick={() =>
                  openNew({
                    ...(scope.kind === 'flag' && { flag: scope.flag }),
                    ...(scope.kind === 'user' && { user: scope.userId }),
                  })
                }
              >
                Override a flag for a user
              </Button>
            }
          />
        ) : null}
        {rows.length > 0 ? (
          <div onPointerEnter={() => setHasPointer(true)} onPointerLeave={() => setHasPointer(false)}>
            <DataTable
              className={styles.table}
              label="User overrides"
              columns={columns}
              rows={rows}
              rowId={(row) => row.id}
              onOpen={(row) => openExisting(row.user_id, row.flag_name)}
              onSelect={(row, range) => setSelection(toggle(selection, row.id, pageIds, range))}
              isSelected={(row) => isSelected(selection, row.id)}
              isChanged={(row) => marks.has(row.id)}
              letterShortcuts={letterShortcuts}
            />
          </div>
        ) : null}
      </TableArea>
      {isEmpty(selection) ? null : (
        <BulkBar
          selection={selection}
          visibleIds={pageIds}
          onSelection={setSelection}
          matching={
            query.data && Object.keys(matching).length > 0 && !search.finding
              ? { filter: matching, total: query.data.total, isExact: query.data.total_is_exact }
              : null
          }
        />
      )}
      <Pager
        {...pages}
        summary={summaryOf(search, formatTotal(query.data), rows.length)}
        nextCursor={query.data?.next_cursor ?? null}
      />
    </>
  );
}

function summaryOf(search: OverridesSearch, total: string, shown: number): string {
  if (search.finding) return `${shown} found on this page`;
  return `${total} ${total === '1' ? 'override' : 'overrides'}${isFiltered(search) ? ' match' : ''}`;
}

interface EmptyProps {
  readonly search: OverridesSearch;
  readonly nextCursor: string | null;
  readonly onClear: () => void;
  readonly onMore: (cursor: string) => void;
  readonly addButton: ReactNode;
}

function EmptyOverrides({ search, nextCursor, onClear, onMore, addButton }: EmptyProps) {
  if (nextCursor) {
    return (
      <EmptyState
        title="Nothing found so far"
        actions={
          <Button variant="primary" onClick={() => onMore(nextCursor)}>
            Continue the search
          </Button>
        }
      >
        The server examines a part of the overrides at a time.
      </EmptyState>
    );
  }
  if (isFiltered(search)) {
    return (
      <EmptyState
        title="No override matches these filters"
        actions={<Button onClick={onClear}>Clear filters</Button>}
      />
    );
  }
  return (
    <EmptyState icon={<IdCardLanyardIcon size={24} aria-hidden />} title="There are no overrides" actions={addButton}>
      An override sets the value of a flag for one user, for testing or debugging. Other users are not affected.
    </EmptyState>
  );
}

interface ColumnOptions {
  readonly scope: Scope;
  readonly marks: ReadonlyMap<string, ChangeMark>;
  readonly selectHead: ReactNode;
  readonly selectCell: (row: UserOverride) => ReactNode;
}

function useColumns({ scope, marks, selectHead, selectCell }: ColumnOptions): Column<UserOverride>[] {
  const zone = useZone();
  const now = useServerTime();
  const lockedReason = useLock('changeOverrides');
  const select: Column<UserOverride> = { id: 'check', head: selectHead, className: styles.check, cell: selectCell };
  const user: Column<UserOverride> = {
    id: 'user',
    head: 'User',
    className: styles.user,
    cell: (row) => (
      <Link to={ADDRESSES.user} params={{ id: row.user_id }} className={styles.link}>
        <UserName id={row.user_id} label={row.user_label} />
      </Link>
    ),
  };
  const flag: Column<UserOverride> = {
    id: 'flag',
    head: 'Flag',
    className: styles.flag,
    cell: (row) => <FlagLink name={row.flag_name} />,
  };
  return [
    ...(lockedReason ? [] : [select]),
    ...(scope.kind === 'user' ? [] : [user]),
    ...(scope.kind === 'flag' ? [] : [flag]),
    {
      id: 'value',
      head: 'Value',
      className: styles.value,
      cell: (row) => (
        <ValueCell
          row={row}
          mark={marks.get(row.id)}
          isGone={statusAt(row, now) === 'expired' || marks.get(row.id)?.isDeleted === true}
        />
      ),
    },
    {
      id: 'status',
      head: 'Status',
      className: styles.status,
      cell: (row) => (
        <span data-status={statusAt(row, now)}>
          <StatusMark status={statusAt(row, now)} />
        </span>
      ),
    },
    {
      id: 'when',
      head: `Expires (${zoneAbbreviation(serverNow(), zone)})`,
      className: styles.when,
      cell: (row) =>
        row.expires_at === null ? (
          <span className="muted">Never</span>
        ) : (
          <When
            instant={row.expires_at}
            absoluteClassName={styles.absolute}
            className={statusAt(row, now) === 'expired' ? 'muted' : undefined}
          />
        ),
    },
    {
      id: 'reason',
      head: 'Reason',
      className: styles.reason,
      cell: (row) => <ReasonCell row={row} mark={marks.get(row.id)} />,
    },
    {
      id: 'by',
      head: 'By',
      className: styles.by,
      cell: (row) => (
        <span className="muted">
          <ActorName actor={row.created_by} />
        </span>
      ),
    },
    {
      id: 'more',
      head: <span className="visually-hidden">Actions</span>,
      className: styles.more,
      cell: (row) => <RowActions override={row} />,
    },
  ];
}

function ValueCell(props: {
  readonly row: UserOverride;
  readonly mark: ChangeMark | undefined;
  readonly isGone: boolean;
}) {
  const { row, mark, isGone } = props;
  const wasOther = mark !== undefined && 'previousValue' in mark && mark.previousValue !== row.override_value;
  return (
    <>
      {wasOther ? (
        <>
          <Value value={mark.previousValue} isGone />{' '}
        </>
      ) : null}
      <Value value={row.override_value} isGone={isGone} />
    </>
  );
}

function ReasonCell({ row, mark }: { readonly row: UserOverride; readonly mark: ChangeMark | undefined }) {
  if (mark) {
    return (
      <span className={styles.changed}>
        <PencilIcon size={12} aria-hidden />
        <span>
          {mark.isDeleted ? 'Deleted' : 'Changed'} just now by <ActorName actor={mark.actor} />
        </span>
      </span>
    );
  }
  return (
    <span className="muted" title={row.reason ?? undefined}>
      {row.reason ?? '–'}
    </span>
  );
}
