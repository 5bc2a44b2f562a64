import { useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { FlagIcon, IdCardLanyardIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import { ADDRESSES } from '../../addresses';
import { toApiError } from '../../api/problem';
import { userFlagsQuery, userQuery } from '../../api/queries';
import type { User } from '../../api/types';
import { Initials } from '../../people/PersonLabel';
import { personDetail, personName, personShortName } from '../../people/people';
import { roleLabel } from '../../session/roles';
import { PageHead } from '../../shell/PageHead';
import { PageLink } from '../../shell/PageLink';
import { Tab, Tabs } from '../../shell/Tabs';
import { DateOnly } from '../../time/When';
import { EmptyState, ErrorState, SkeletonRows } from '../../ui/States';
import { AddOverrideButton } from '../flags/FlagTabs';
import { UserOverridesPanel } from '../overrides/UserOverridesPanel';
import { UserFlags } from './UserFlags';
import { UserMenu } from './UserMenu';
import styles from './users.module.css';

const flagsRoute = getRouteApi(ADDRESSES.user);
const overridesRoute = getRouteApi(ADDRESSES.userOverridesOfUser);

/** Page with the values of all flags for one user. */
export function UserFlagsPage() {
  const { id } = flagsRoute.useParams();
  return <UserFrame id={id}>{(user) => <UserFlags user={user} />}</UserFrame>;
}

/** Page with the overrides of one user. */
export function UserOverridesOfUserPage() {
  const { id } = overridesRoute.useParams();
  const search = overridesRoute.useSearch();
  const navigate = overridesRoute.useNavigate();
  return (
    <UserFrame id={id}>
      {() => (
        <UserOverridesPanel
          key={id}
          scope={{ kind: 'user', userId: id }}
          search={search}
          onSearch={(change, replace) =>
            void navigate({ search: (old) => ({ ...old, ...change }), replace: replace ?? false })
          }
        />
      )}
    </UserFrame>
  );
}

function UserFrame({ id, children }: { readonly id: string; readonly children: (user: User) => ReactNode }) {
  const query = useQuery({ ...userQuery(id), retry: false });
  const flags = useQuery({ ...userFlagsQuery(id), enabled: query.data !== undefined });
  const back = { to: ADDRESSES.users, label: 'Users' } as const;
  const user = query.data?.resource;
  if (!user || !query.data) {
    const isMissing = query.isError && toApiError(query.error).status === 404;
    return (
      <>
        <PageHead title="User" back={back} />
        {query.isPending ? <SkeletonRows /> : null}
        {isMissing ? (
          <EmptyState title="There is no such user" actions={<PageLink to={ADDRESSES.users}>Search users</PageLink>}>
            The user may have been deleted.
          </EmptyState>
        ) : null}
        {query.isError && !isMissing ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
      </>
    );
  }
  const detail = personDetail(user);
  const externalId = user.email && user.external_id ? `External ID ${user.external_id}` : null;
  const count = flags.data ? Object.keys(flags.data.flags).length : undefined;
  return (
    <>
      <PageHead
        title={personName(user)}
        back={back}
        actions={
          <>
            <UserMenu user={query.data} />
            <AddOverrideButton user={id} label={`Override a flag for ${personShortName(user)}`} />
          </>
        }
      />
      <div className={styles.who}>
        <Initials person={user} isLarge />
        <div className={styles.whoText}>
          <h1 className="cut">{personName(user)}</h1>
          <div className="muted cut">
            {[detail, externalId].filter(Boolean).map((text) => `${text} · `)}
            {roleLabel(user.role)} · {user.active ? 'active' : 'inactive'}
            <span className="wide-only">
              {' · since '}
              <DateOnly instant={user.created_at} />
            </span>
          </div>
        </div>
      </div>
      <Tabs label={personName(user)}>
        <Tab
          to={ADDRESSES.user}
          params={{ id }}
          activeOptions={{ exact: true, includeSearch: false }}
          Icon={FlagIcon}
          count={count?.toLocaleString('en-GB')}
        >
          Flags
        </Tab>
        <Tab
          to={ADDRESSES.userOverridesOfUser}
          params={{ id }}
          activeOptions={{ includeSearch: false }}
          Icon={IdCardLanyardIcon}
          count={user.override_count.toLocaleString('en-GB')}
        >
          Overrides
        </Tab>
      </Tabs>
      {children(user)}
    </>
  );
}
