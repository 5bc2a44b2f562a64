import { useQuery } from '@tanstack/react-query';
import { getRouteApi, Link, useNavigate } from '@tanstack/react-router';
import { IdCardLanyardIcon, PlusIcon, UsersIcon } from 'lucide-react';
import { useState } from 'react';
import { ADDRESSES } from '../../addresses';
import { usersQuery } from '../../api/queries';
import type { User } from '../../api/types';
import { useChangeMarks } from '../../live/marks';
import { PersonLabel } from '../../people/PersonLabel';
import { personName } from '../../people/people';
import { usePreferences } from '../../preferences/preferences';
import { roleLabel } from '../../session/roles';
import { useLock } from '../../session/session';
import { PageHead } from '../../shell/PageHead';
import { Bar, BarEnd, FIND_CLASS } from '../../shell/Tabs';
import { DateOnly } from '../../time/When';
import { Button } from '../../ui/Button';
import { type Column, DataTable, TableArea } from '../../ui/DataTable';
import { FilterChip, SearchField, Select } from '../../ui/Field';
import { formatTotal, Pager } from '../../ui/Pager';
import { EmptyState, ErrorState, ProgressBar, SkeletonRows } from '../../ui/States';
import { usePages } from '../../ui/usePages';
import { CountBadge } from '../../values/parts';
import { UserForm } from './UserForm';
import styles from './users.module.css';

const route = getRouteApi(ADDRESSES.users);

/** Minimum length of a search term that matches anywhere in the text. Shorter terms match prefixes only. */
const MIN_PART = 3;

export function UsersPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const openUser = useNavigate();
  const { letterShortcuts } = usePreferences();
  const marks = useChangeMarks();
  const lockedReason = useLock('changeUsers');
  const [isCreating, setIsCreating] = useState(false);
  const query = useQuery(
    usersQuery({
      ...(search.search && { search: search.search }),
      ...(search.has_overrides && { has_overrides: search.has_overrides === 'true' }),
      ...(search.sort && { sort: search.sort }),
      ...(search.cursor && { cursor: search.cursor }),
    }),
  );
  const pages = usePages(search.cursor, (cursor) => void navigate({ search: (old) => ({ ...old, cursor }) }));
  const filter = (change: Partial<typeof search>) =>
    void navigate({ search: (old) => ({ ...old, ...change, cursor: undefined }), replace: true });
  const isFiltered = Boolean(search.search || search.has_overrides);
  const withOverrides = search.has_overrides === 'true';
  return (
    <>
      <PageHead
        title="Users"
        actions={
          <>
            <Button
              variant="primary"
              className="wide-only"
              lockedReason={lockedReason}
              onClick={() => setIsCreating(true)}
            >
              <PlusIcon size={16} aria-hidden />
              New user
            </Button>
            <Button
              variant="primary"
              iconOnly
              className="narrow-only"
              aria-label="New user"
              lockedReason={lockedReason}
              onClick={() => setIsCreating(true)}
            >
              <PlusIcon size={16} aria-hidden />
            </Button>
          </>
        }
      />
      <Bar>
        <SearchField
          className={FIND_CLASS}
          label="Search users by e-mail, name or external id"
          placeholder="E-mail, name or external id"
          value={search.search ?? ''}
          onChange={(text) => filter({ search: text || undefined })}
        />
        <FilterChip
          icon={<IdCardLanyardIcon size={12} aria-hidden />}
          label="With overrides"
          count={withOverrides ? formatTotal(query.data) : undefined}
          isOn={withOverrides}
          onClick={() => filter({ has_overrides: withOverrides ? undefined : 'true' })}
        />
        <BarEnd>
          <Select
            aria-label="Sort order"
            value={search.sort ?? 'email'}
            onChange={(event) => filter({ sort: event.target.value === '-created_at' ? '-created_at' : undefined })}
          >
            <option value="email">By e-mail</option>
            <option value="-created_at">Newest first</option>
          </Select>
        </BarEnd>
      </Bar>
      {search.search && search.search.length < MIN_PART ? (
        <p className={styles.hint}>With one or two characters, the search finds beginnings only.</p>
      ) : null}
      <TableArea busy={query.isFetching}>
        {query.isFetching && query.data ? <ProgressBar /> : null}
        {query.isPending ? <SkeletonRows /> : null}
        {query.isError && !query.data ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
        {query.data?.items.length === 0 ? (
          <EmptyState
            icon={<UsersIcon size={24} aria-hidden />}
            title={isFiltered ? 'No user matches these filters' : 'There are no users yet'}
            actions={
              isFiltered ? (
                <Button onClick={() => void navigate({ search: {} })}>Clear filters</Button>
              ) : (
                <Button lockedReason={lockedReason} onClick={() => setIsCreating(true)}>
                  New user
                </Button>
              )
            }
          >
            {isFiltered ? null : 'Flags are evaluated for users, with their attributes.'}
          </EmptyState>
        ) : null}
        {query.data && query.data.items.length > 0 ? (
          <DataTable
            className={styles.table}
            label="Users"
            columns={COLUMNS}
            rows={query.data.items}
            rowId={(user) => user.id}
            onOpen={(user) => void openUser({ to: ADDRESSES.user, params: { id: user.id } })}
            isChanged={(user) => marks.has(user.id)}
            letterShortcuts={letterShortcuts}
          />
        ) : null}
      </TableArea>
      <Pager
        {...pages}
        summary={`${formatTotal(query.data)} users${isFiltered ? ' match' : ''}`}
        nextCursor={query.data?.next_cursor ?? null}
      />
      {isCreating ? (
        <UserForm
          onClose={() => setIsCreating(false)}
          onSaved={(user) => void openUser({ to: ADDRESSES.user, params: { id: user.id } })}
        />
      ) : null}
    </>
  );
}

const COLUMNS: readonly Column<User>[] = [
  {
    id: 'person',
    head: 'User',
    className: styles.person,
    cell: (user) => (
      <Link to={ADDRESSES.user} params={{ id: user.id }}>
        <PersonLabel person={user} />
      </Link>
    ),
  },
  { id: 'role', head: 'Role', className: styles.role, cell: (user) => roleLabel(user.role) },
  {
    id: 'status',
    head: 'Status',
    className: styles.status,
    cell: (user) => (user.active ? 'Active' : <span className="muted">Inactive</span>),
  },
  {
    id: 'overrides',
    head: 'Overrides',
    className: styles.overrides,
    cell: (user) =>
      user.override_count === 0 ? (
        <span className="muted">–</span>
      ) : (
        <Link to={ADDRESSES.userOverridesOfUser} params={{ id: user.id }}>
          <CountBadge layer="override" count={user.override_count} noun={`overrides of ${personName(user)}`} />
        </Link>
      ),
  },
  {
    id: 'created',
    head: 'Created',
    className: styles.created,
    cell: (user) => (
      <span className="muted">
        <DateOnly instant={user.created_at} />
      </span>
    ),
  },
];
