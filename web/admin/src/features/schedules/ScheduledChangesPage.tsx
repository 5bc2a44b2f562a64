import { useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { CalendarClockIcon } from 'lucide-react';
import { ADDRESSES } from '../../addresses';
import { schedulesQuery } from '../../api/queries';
import type { ScheduledChange } from '../../api/types';
import { ActorName } from '../../people/PersonLabel';
import { usePreferences, useZone } from '../../preferences/preferences';
import { Bar } from '../../shell/Tabs';
import { serverNow } from '../../time/clock';
import { zoneAbbreviation } from '../../time/format';
import { When } from '../../time/When';
import { type Column, DataTable, TableArea } from '../../ui/DataTable';
import { FilterChip } from '../../ui/Field';
import { formatTotal, Pager } from '../../ui/Pager';
import { EmptyState, ErrorState, ProgressBar, SkeletonRows } from '../../ui/States';
import { usePages } from '../../ui/usePages';
import { StatusMark } from '../../values/parts';
import { FlagLink } from '../flags/FlagLink';
import { FeatureFlagsHead } from '../flags/FlagTabs';
import { ChangeText } from './ScheduledChange';
import styles from './schedules.module.css';

const route = getRouteApi(ADDRESSES.scheduledChanges);

/** Page with the scheduled changes of all flags. */
export function ScheduledChangesPage() {
  const { status, cursor } = route.useSearch();
  const navigate = route.useNavigate();
  const zone = useZone();
  const { letterShortcuts } = usePreferences();
  const query = useQuery(schedulesQuery(null, { ...(status && { status }), ...(cursor && { cursor }) }));
  const pages = usePages(cursor, (next) => void navigate({ search: (old) => ({ ...old, cursor: next }) }));
  const columns = scheduleColumns(zone);
  return (
    <>
      <FeatureFlagsHead subtitle="Changes for all users at a future time, for gradual rollout" />
      <Bar isScrolling>
        <FilterChip label="All" isOn={!status} onClick={() => void navigate({ search: {} })} />
        <FilterChip
          label="Pending"
          isOn={status === 'pending'}
          onClick={() => void navigate({ search: { status: 'pending' } })}
        />
      </Bar>
      <TableArea busy={query.isFetching}>
        {query.isFetching && query.data ? <ProgressBar /> : null}
        {query.isPending ? <SkeletonRows /> : null}
        {query.isError && !query.data ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
        {query.data?.items.length === 0 ? (
          <EmptyState icon={<CalendarClockIcon size={24} aria-hidden />} title="No change is scheduled">
            A scheduled change sets what a flag serves to all users, or its switch, at a future time.
          </EmptyState>
        ) : null}
        {query.data && query.data.items.length > 0 ? (
          <DataTable
            className={styles.table}
            label="Scheduled changes"
            columns={columns}
            rows={query.data.items}
            rowId={(change) => change.id}
            letterShortcuts={letterShortcuts}
          />
        ) : null}
      </TableArea>
      <Pager {...pages} summary={`${formatTotal(query.data)} changes`} nextCursor={query.data?.next_cursor ?? null} />
    </>
  );
}

function scheduleColumns(zone: string): Column<ScheduledChange>[] {
  return [
    {
      id: 'when',
      head: `When (${zoneAbbreviation(serverNow(), zone)})`,
      className: styles.when,
      cell: (change) => (
        <When
          instant={change.scheduled_at}
          absoluteClassName={change.status === 'cancelled' ? styles.struck : 'strong'}
          withRelative={change.status !== 'cancelled'}
        />
      ),
    },
    {
      id: 'flag',
      head: 'Flag',
      className: styles.flag,
      cell: ({ flag_name }) => <FlagLink name={flag_name} />,
    },
    { id: 'change', head: 'Change', className: styles.change, cell: (change) => <ChangeText change={change} /> },
    { id: 'status', head: 'Status', className: styles.status, cell: ({ status }) => <StatusMark status={status} /> },
    {
      id: 'note',
      head: 'Note',
      className: styles.note,
      cell: ({ description }) => (
        <span className="muted" title={description ?? undefined}>
          {description ?? '–'}
        </span>
      ),
    },
    {
      id: 'by',
      head: 'By',
      className: styles.by,
      cell: ({ created_by }) => (
        <span className="muted">
          <ActorName actor={created_by} />
        </span>
      ),
    },
  ];
}
