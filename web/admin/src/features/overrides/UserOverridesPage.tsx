import { getRouteApi } from '@tanstack/react-router';
import { ADDRESSES } from '../../addresses';
import { FeatureFlagsHead } from '../flags/FlagTabs';
import { UserOverridesPanel } from './UserOverridesPanel';

const route = getRouteApi(ADDRESSES.userOverrides);

/** Page with the overrides of all users. */
export function UserOverridesPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  return (
    <>
      <FeatureFlagsHead subtitle="Values for individual users, effective immediately, for testing and debugging" />
      <UserOverridesPanel
        scope={{ kind: 'all' }}
        search={search}
        onSearch={(change, replace) =>
          void navigate({ search: (previous) => ({ ...previous, ...change }), replace: replace ?? false })
        }
      />
    </>
  );
}
