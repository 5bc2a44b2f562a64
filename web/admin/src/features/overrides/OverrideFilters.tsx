import { ClockIcon, TriangleAlertIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import type { FindingCode, OverrideStatus } from '../../api/types';
import type { OverridesSearch } from '../../searchParams';
import { Bar, BarEnd, BarSeparator, FIND_CLASS } from '../../shell/Tabs';
import { FilterChip, SearchField, Select } from '../../ui/Field';
import { findingLabel, statusLabel } from '../../values/parts';
import type { Scope } from './overrideQuery';

const STATUSES: readonly OverrideStatus[] = ['active', 'disabled', 'expired'];
const FINDINGS: readonly FindingCode[] = [
  'override_redundant',
  'override_shadows_rule',
  'override_shadows_schedule',
  'override_on_disabled_flag',
];

interface FiltersProps {
  readonly scope: Scope;
  readonly search: OverridesSearch;
  readonly total: string;
  readonly onFilter: (change: Partial<OverridesSearch>) => void;
  readonly end: ReactNode;
}

/** Search, sort order and filters of the override list. The URL stores all of them. */
export function OverrideFilters({ scope, search, total, onFilter, end }: FiltersProps) {
  const { finding } = search;
  const findingLock = finding ? 'Not available together with a filter by finding.' : undefined;
  const countFor = (isOn: boolean) => (isOn && !finding ? total : undefined);
  const isAll = !search.status && !search.ends_within && !finding;
  return (
    <>
      <Bar>
        <SearchField
          className={FIND_CLASS}
          label="Search overrides by user or flag"
          placeholder="User or flag"
          value={search.search ?? ''}
          lockedReason={findingLock}
          onChange={(text) => onFilter({ search: text || undefined })}
        />
        {search.flag_name && scope.kind !== 'flag' ? (
          <FilterChip label={`Flag: ${search.flag_name} ×`} isOn onClick={() => onFilter({ flag_name: undefined })} />
        ) : null}
        {search.user_id && scope.kind !== 'user' ? (
          <FilterChip label="One user ×" isOn onClick={() => onFilter({ user_id: undefined })} />
        ) : null}
        <BarEnd>
          <Select
            aria-label="Sort order"
            value={finding ? '' : (search.sort ?? '-updated_at')}
            disabled={finding !== undefined}
            title={findingLock}
            onChange={(event) => onFilter({ sort: event.target.value === 'expires_at' ? 'expires_at' : undefined })}
          >
            <option value="-updated_at">Last changed first</option>
            <option value="expires_at">Soonest expiry first</option>
          </Select>
        </BarEnd>
      </Bar>
      <Bar isScrolling>
        <FilterChip
          label="All"
          count={countFor(isAll)}
          isOn={isAll}
          onClick={() => onFilter({ status: undefined, ends_within: undefined, finding: undefined })}
        />
        {STATUSES.map((status) => (
          <FilterChip
            key={status}
            label={statusLabel(status)}
            count={countFor(search.status === status && !search.ends_within)}
            isOn={search.status === status}
            onClick={() => onFilter({ status: search.status === status ? undefined : status })}
          />
        ))}
        <BarSeparator />
        <FilterChip
          icon={<ClockIcon size={12} aria-hidden />}
          label="Expires in 24 h"
          count={countFor(search.ends_within === '24h')}
          isOn={search.ends_within === '24h'}
          onClick={() => onFilter({ ends_within: search.ends_within === '24h' ? undefined : '24h' })}
        />
        <FilterChip
          icon={<ClockIcon size={12} aria-hidden />}
          label="Expires in 7 d"
          count={countFor(search.ends_within === '7d')}
          isOn={search.ends_within === '7d'}
          onClick={() => onFilter({ ends_within: search.ends_within === '7d' ? undefined : '7d' })}
        />
        {FINDINGS.map((code) => (
          <FilterChip
            key={code}
            icon={<TriangleAlertIcon size={12} aria-hidden />}
            label={findingLabel(code)}
            isOn={finding === code}
            onClick={() => onFilter({ finding: finding === code ? undefined : code })}
          />
        ))}
        <BarEnd>{end}</BarEnd>
      </Bar>
    </>
  );
}
