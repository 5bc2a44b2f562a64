import { createFlagClient } from '@feature-flags/sdk';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { ToggleRightIcon } from 'lucide-react';
import { useEffect } from 'react';
import { ADDRESSES } from '../../addresses';
import { keys } from '../../api/keys';
import { ownFlagsQuery, ownOverridesQuery } from '../../api/queries';
import type { OwnFlagResult, OwnOverride } from '../../api/types';
import { usePreferences } from '../../preferences/preferences';
import { useIdentity } from '../../session/session';
import { PageHead } from '../../shell/PageHead';
import { Bar, FIND_CLASS } from '../../shell/Tabs';
import { useFormatTime, When } from '../../time/When';
import { type Column, DataTable, TableArea } from '../../ui/DataTable';
import { SearchField } from '../../ui/Field';
import { EmptyState, ErrorState, SkeletonRows } from '../../ui/States';
import { FlagLabel, LayerChip, StatusMark, Value } from '../../values/parts';
import styles from './my-flags.module.css';

const route = getRouteApi(ADDRESSES.myFlags);

interface OwnFlag extends OwnFlagResult {
  readonly name: string;
}

/** Page with the flag values and overrides of the signed-in user. */
export function MyFlagsPage() {
  const { search } = route.useSearch();
  const navigate = route.useNavigate();
  const { letterShortcuts } = usePreferences();
  const { id } = useIdentity();
  useLiveOwnFlags(id !== null);
  const flags = useQuery({ ...ownFlagsQuery(), enabled: id !== null });
  const overrides = useQuery({ ...ownOverridesQuery(), enabled: id !== null });
  const term = (search ?? '').toLowerCase();
  const rows = flags.data
    ? Object.entries(flags.data.flags)
        .filter(([name]) => name.toLowerCase().includes(term))
        .map(([name, result]): OwnFlag => ({ name, ...result }))
        .sort((a, b) => a.name.localeCompare(b.name))
    : undefined;
  const inactive = (overrides.data?.overrides ?? []).filter(({ status }) => status !== 'active');
  return (
    <>
      <PageHead title="My flags" />
      <Bar>
        <SearchField
          className={FIND_CLASS}
          label="Search my flags"
          placeholder="Name of the flag"
          value={search ?? ''}
          onChange={(text) => void navigate({ search: { search: text || undefined }, replace: true })}
        />
      </Bar>
      <TableArea>
        {id === null ? <EmptyState title="You have no flags">This credential belongs to no user.</EmptyState> : null}
        {flags.isLoading ? <SkeletonRows /> : null}
        {flags.isError ? <ErrorState error={flags.error} onRetry={() => void flags.refetch()} /> : null}
        {overrides.isError ? <ErrorState error={overrides.error} onRetry={() => void overrides.refetch()} /> : null}
        {rows?.length === 0 ? (
          <EmptyState icon={<ToggleRightIcon size={24} aria-hidden />} title="No flags to show">
            {search ? `No flag matches “${search}”.` : 'Applications use no flags that you can see.'}
          </EmptyState>
        ) : null}
        {rows && rows.length > 0 ? (
          <DataTable
            className={styles.table}
            label="My flags"
            columns={COLUMNS}
            rows={rows}
            rowId={({ name }) => name}
            letterShortcuts={letterShortcuts}
          />
        ) : null}
        {inactive.length > 0 ? (
          <>
            <h2 className={styles.heading}>Overrides without effect</h2>
            <DataTable
              className={styles.table}
              label="Overrides without effect"
              columns={OVERRIDE_COLUMNS}
              rows={inactive}
              rowId={(override) => override.id}
              letterShortcuts={letterShortcuts}
            />
          </>
        ) : null}
      </TableArea>
    </>
  );
}

/** Reloads the signed-in user's flags whenever the event stream of the SDK reports a change. */
function useLiveOwnFlags(isEnabled: boolean): void {
  const queryClient = useQueryClient();
  useEffect(() => {
    if (!isEnabled) return;
    const client = createFlagClient({ baseUrl: location.origin });
    const unsubscribe = client.subscribe(() => {
      void queryClient.invalidateQueries({ queryKey: keys.ownFlags });
      void queryClient.invalidateQueries({ queryKey: keys.ownOverrides });
    });
    return () => {
      unsubscribe();
      client.close();
    };
  }, [isEnabled, queryClient]);
}

const COLUMNS: readonly Column<OwnFlag>[] = [
  {
    id: 'name',
    head: 'Flag',
    className: styles.name,
    cell: (flag) => <FlagLabel name={flag.name} type={flag.flag_type} />,
  },
  {
    id: 'value',
    head: 'Value',
    className: styles.value,
    cell: ({ value }) => <Value value={value} className="cut" />,
  },
  { id: 'source', head: 'Source', className: styles.sourceCell, cell: (flag) => <SourceCell flag={flag} /> },
];

function SourceCell({ flag }: { readonly flag: OwnFlag }) {
  const formatTime = useFormatTime();
  return (
    <span className={styles.source}>
      <LayerChip layer={flag.source} />
      {flag.override ? (
        <span className="muted cut">
          {flag.override.expires_at ? `until ${formatTime(flag.override.expires_at)}` : 'never expires'}
          {flag.override.reason ? ` · ${flag.override.reason}` : ''}
        </span>
      ) : null}
    </span>
  );
}

const OVERRIDE_COLUMNS: readonly Column<OwnOverride>[] = [
  {
    id: 'name',
    head: 'Flag',
    className: styles.name,
    cell: ({ flag_name }) => <FlagLabel name={flag_name} />,
  },
  {
    id: 'value',
    head: 'Value',
    className: styles.value,
    cell: ({ override_value, status }) => <Value value={override_value} isGone={status === 'expired'} />,
  },
  {
    id: 'status',
    head: 'Status',
    className: styles.sourceCell,
    cell: ({ status, expires_at }) => (
      <span className={styles.source}>
        <StatusMark status={status} />
        {expires_at ? <When instant={expires_at} className="muted" /> : null}
      </span>
    ),
  },
];
