import { useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { ClockIcon } from 'lucide-react';
import { useMemo, useState } from 'react';
import { ADDRESSES } from '../../addresses';
import { userFlagsQuery } from '../../api/queries';
import type { Source, User, UserFlagResult } from '../../api/types';
import { personShortName } from '../../people/people';
import { usePreferences, useZone } from '../../preferences/preferences';
import { useLock } from '../../session/session';
import { Bar, FIND_CLASS } from '../../shell/Tabs';
import { serverNow, useServerTime } from '../../time/clock';
import { formatFull, formatInstant } from '../../time/format';
import { useFormatTime } from '../../time/When';
import { readLocalTime, toLocalTime } from '../../time/zones';
import { Button } from '../../ui/Button';
import { classes } from '../../ui/classes';
import { type Column, DataTable, TableArea } from '../../ui/DataTable';
import { FilterChip, SearchField, TextInput } from '../../ui/Field';
import { Pager } from '../../ui/Pager';
import { EmptyState, ErrorState, Notice, ProgressBar, SkeletonRows } from '../../ui/States';
import { FlagLabel, LayerChip, layerInfo, Value } from '../../values/parts';
import { useEditorLink } from '../overrides/editorAddress';
import styles from './users.module.css';
import { WhyPanel } from './WhyPanel';

const route = getRouteApi(ADDRESSES.user);

const SOURCES: readonly Source[] = [
  'override',
  'targeting_rule',
  'scheduled_change',
  'default',
  'disabled',
  'evaluation_too_expensive',
];
/** Sources whose filter is shown only if a flag has this source. */
const RARE_SOURCES: readonly Source[] = ['evaluation_too_expensive'];
/** Maximum delay of `setTimeout`; milliseconds. */
const MAX_TIMER = 2_147_483_647;

interface Row {
  readonly name: string;
  readonly result: UserFlagResult;
}

/** Table with the values and sources of all flags for a user, now or at a future time. */
export function UserFlags({ user }: { readonly user: User }) {
  const { search, source, at, why } = route.useSearch();
  const navigate = route.useNavigate();
  const { letterShortcuts } = usePreferences();
  const { openExisting, openNew } = useEditorLink();
  const query = useQuery({
    ...userFlagsQuery(user.id, at ?? null),
    // Expiries and scheduled changes change values without an event.
    refetchInterval: ({ state }) => timeUntil(state.data?.valid_until ?? null),
  });
  const change = (next: Partial<ReturnType<typeof route.useSearch>>, replace = true) =>
    void navigate({ search: (old) => ({ ...old, ...next }), replace });
  const all = useMemo<Row[]>(
    () =>
      Object.entries(query.data?.flags ?? {})
        .map(([name, result]) => ({ name, result }))
        .sort((a, b) => a.name.localeCompare(b.name)),
    [query.data],
  );
  const term = (search ?? '').toLowerCase();
  const rows = all.filter(
    ({ name, result }) => name.toLowerCase().includes(term) && (!source || result.source === source),
  );
  const columns = useColumns({
    user,
    why,
    isForecast: at !== undefined,
    onWhy: (name) => change({ why: name }, false),
  });
  return (
    <div className={classes(styles.split, why && styles.splitOpen)}>
      <div className={styles.left}>
        <TimeChoice at={at} next={query.data?.valid_until ?? null} onChange={(next) => change({ at: next })} />
        {at ? <Forecast at={at} name={personShortName(user)} /> : null}
        <Bar>
          <SearchField
            className={FIND_CLASS}
            label="Search flags by name"
            placeholder="Name of the flag"
            value={search ?? ''}
            onChange={(text) => change({ search: text || undefined })}
          />
        </Bar>
        <Bar isScrolling>
          <FilterChip
            label="All"
            count={all.length.toLocaleString('en-GB')}
            isOn={!source}
            onClick={() => change({ source: undefined })}
          />
          {SOURCES.map((layer) => ({ layer, count: all.filter(({ result }) => result.source === layer).length }))
            .filter(({ layer, count }) => count > 0 || source === layer || !RARE_SOURCES.includes(layer))
            .map(({ layer, count }) => (
              <SourceFilter
                key={layer}
                layer={layer}
                count={count}
                isOn={source === layer}
                onClick={() => change({ source: source === layer ? undefined : layer })}
              />
            ))}
        </Bar>
        <TableArea busy={query.isFetching}>
          {query.isFetching && query.data ? <ProgressBar /> : null}
          {query.isPending ? <SkeletonRows /> : null}
          {query.isError && !query.data ? (
            <ErrorState error={query.error} onRetry={() => void query.refetch()} />
          ) : null}
          {query.data && rows.length === 0 ? (
            <EmptyState
              title={all.length === 0 ? 'There are no flags' : 'No flag matches these filters'}
              actions={
                all.length > 0 ? (
                  <Button onClick={() => change({ search: undefined, source: undefined })}>Clear filters</Button>
                ) : null
              }
            />
          ) : null}
          {rows.length > 0 ? (
            <DataTable
              className={styles.flags}
              label={`Flag values of ${personShortName(user)}`}
              columns={columns}
              rows={rows}
              rowId={({ name }) => name}
              onOpen={({ name, result }) =>
                at
                  ? change({ why: name }, false)
                  : result.override
                    ? openExisting(user.id, name)
                    : openNew({ user: user.id, flag: name })
              }
              isSelected={({ name }) => name === why}
              letterShortcuts={letterShortcuts}
            />
          ) : null}
        </TableArea>
        <Pager
          summary={`${rows.length} of ${all.length} flags`}
          hasPrevious={false}
          nextCursor={null}
          onFirst={() => {}}
          onPrevious={() => {}}
          onNext={() => {}}
        />
      </div>
      {why ? <WhyPanel user={user} flag={why} at={at ?? null} onClose={() => change({ why: undefined })} /> : null}
    </div>
  );
}

/** Returns the milliseconds until an instant, plus a margin so that the server's clock has passed the instant. */
function timeUntil(instant: string | null): number | false {
  if (instant === null) return false;
  return Math.min(MAX_TIMER, Math.max(500, Date.parse(instant) - serverNow() + 500));
}

function SourceFilter(props: {
  readonly layer: Source;
  readonly count: number;
  readonly isOn: boolean;
  readonly onClick: () => void;
}) {
  const { layer, count, isOn, onClick } = props;
  const { label, Icon } = layerInfo(layer);
  return (
    <FilterChip
      icon={<Icon size={14} aria-hidden />}
      label={label}
      count={count.toLocaleString('en-GB')}
      isOn={isOn}
      onClick={onClick}
    />
  );
}

interface TimeChoiceProps {
  readonly at: string | undefined;
  /** Next instant at which a value may change. */
  readonly next: string | null;
  readonly onChange: (at: string | undefined) => void;
}

/** Selects the time of the evaluation: now, the next change, or a picked time. */
function TimeChoice({ at, next, onChange }: TimeChoiceProps) {
  const zone = useZone();
  const now = useServerTime(60_000);
  const [isPicking, setIsPicking] = useState(false);
  const pick = (local: string) => {
    const instant = readLocalTime(local, zone)?.instants[0];
    if (instant !== undefined && instant > now) onChange(new Date(instant).toISOString());
  };
  return (
    <fieldset className={styles.at}>
      <legend className="visually-hidden">Point in time</legend>
      <FilterChip label="Now" isOn={!at} onClick={() => onChange(undefined)} />
      {next ? (
        <FilterChip
          label={`Next change: ${formatInstant(Date.parse(next), now, zone)}`}
          isOn={at === next}
          onClick={() => onChange(next)}
        />
      ) : null}
      <FilterChip
        icon={<ClockIcon size={12} aria-hidden />}
        label={at && at !== next ? formatInstant(Date.parse(at), now, zone) : 'Another time…'}
        isOn={at !== undefined && at !== next}
        onClick={() => setIsPicking(!isPicking)}
      />
      {isPicking ? (
        <TextInput
          type="datetime-local"
          aria-label={`Date and time (${zone})`}
          defaultValue={toLocalTime(at ? Date.parse(at) : now + 86_400_000, zone)}
          min={toLocalTime(now, zone)}
          onChange={(event) => pick(event.target.value)}
        />
      ) : null}
    </fieldset>
  );
}

function Forecast({ at, name }: { readonly at: string; readonly name: string }) {
  const zone = useZone();
  return (
    <div className={styles.banner}>
      <Notice kind="info" title={`Forecast for ${formatFull(Date.parse(at), zone)}`}>
        What {name} will get then, according to the current flags, overrides and scheduled changes. Go back to “Now” to
        edit.
      </Notice>
    </div>
  );
}

interface ColumnOptions {
  readonly user: User;
  readonly why: string | undefined;
  readonly isForecast: boolean;
  readonly onWhy: (flag: string) => void;
}

function useColumns({ user, why, isForecast, onWhy }: ColumnOptions): Column<Row>[] {
  const { openExisting, openNew } = useEditorLink();
  const lock = useLock('changeOverrides');
  const lockedReason = isForecast ? 'Go back to “Now” to edit.' : lock;
  return [
    {
      id: 'name',
      head: 'Flag',
      className: styles.flagName,
      cell: ({ name, result }) => (
        <FlagLabel name={name} type={result.flag_type}>
          <Link to={ADDRESSES.flag} params={{ flag: name }}>
            {name}
          </Link>
        </FlagLabel>
      ),
    },
    {
      id: 'value',
      head: 'Value',
      className: styles.value,
      cell: ({ result }) => <Value value={result.value} className="cut" />,
    },
    {
      id: 'source',
      head: 'Source',
      className: styles.sourceCell,
      cell: ({ result }) => (
        <span className={styles.source}>
          <LayerChip layer={result.source} />
          <span className="muted cut">
            <SourceDetail result={result} />
          </span>
        </span>
      ),
    },
    {
      id: 'actions',
      head: <span className="visually-hidden">Actions</span>,
      className: styles.actions,
      cell: ({ name, result }) => (
        <span className={styles.buttons}>
          <Button
            small
            variant={why === name ? 'line' : 'quiet'}
            aria-expanded={why === name}
            aria-label={`Why? ${name}`}
            onClick={() => onWhy(name)}
          >
            Why?
          </Button>
          <Button
            small
            variant="quiet"
            lockedReason={lockedReason}
            aria-label={result.override ? `Edit override of ${name}` : `Override ${name}`}
            onClick={() => (result.override ? openExisting(user.id, name) : openNew({ user: user.id, flag: name }))}
          >
            {result.override ? 'Edit' : 'Override'}
          </Button>
        </span>
      ),
    },
  ];
}

function SourceDetail({ result }: { readonly result: UserFlagResult }) {
  const formatTime = useFormatTime();
  const { source, override, rule_id } = result;
  if (source === 'override' && override) {
    return override.expires_at ? `until ${formatTime(override.expires_at)}` : 'never expires';
  }
  if (source === 'targeting_rule') return rule_id ?? '';
  if (source === 'disabled') return 'flag is off';
  if (source === 'evaluation_too_expensive') return 'serves the off variant';
  if (override) return `override is ${override.status}`;
  return '';
}
