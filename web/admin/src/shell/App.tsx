import { Navigate, Outlet, useLocation, useMatches } from '@tanstack/react-router';
import { lazy, Suspense } from 'react';
import { ADDRESSES } from '../addresses';
import { toApiError } from '../api/problem';
import { resumeStream } from '../live/connection';
import { LiveProvider } from '../live/LiveProvider';
import { hasPermission, permissionHint } from '../session/roles';
import { SignInDialog } from '../session/SignInDialog';
import { IdentityProvider, useIdentity, useSession } from '../session/session';
import { EmptyState, ErrorState } from '../ui/States';
import { ToastRegion } from '../ui/toast';
import { Frame } from './Frame';
import { PageLink } from './PageLink';
import { ShortcutProvider } from './Shortcuts';

const OverrideDrawer = lazy(() => import('../features/overrides/OverrideDrawer'));

/** Root component. Provides the identity, live updates, navigation and overlays to all pages. */
export function App() {
  const { pathname, href } = useLocation();
  const { query, isExpired, onSignedIn } = useSession();
  // During a navigation, the location is that of the next page while the previous one is still rendered.
  const rendersSignIn = useMatches({ select: (matches) => matches.at(-1)?.routeId === ADDRESSES.signIn });

  if (rendersSignIn) {
    const page = <Outlet />;
    return query.data ? <IdentityProvider identity={query.data}>{page}</IdentityProvider> : page;
  }
  if (query.data) {
    return (
      <IdentityProvider identity={query.data}>
        <SignedIn />
        {isExpired ? (
          <SignInDialog
            onSignedIn={(identity) => {
              onSignedIn(identity);
              resumeStream();
            }}
          />
        ) : null}
        <ToastRegion />
      </IdentityProvider>
    );
  }
  if (query.isPending) return null;
  if (toApiError(query.error).status === 401) {
    if (pathname === ADDRESSES.signIn) return null;
    return <Navigate to={ADDRESSES.signIn} search={href === '/' ? {} : { next: href }} replace />;
  }
  return <ErrorState error={query.error} onRetry={() => void query.refetch()} title="The server cannot be used now" />;
}

/** Pages that every signed-in user may see. */
const OPEN_PAGES: readonly string[] = [ADDRESSES.home, ADDRESSES.myFlags, ADDRESSES.profile];

function SignedIn() {
  const { pathname } = useLocation();
  const { role } = useIdentity();
  const canRead = hasPermission(role, 'read');
  const isOpen = OPEN_PAGES.includes(pathname);
  const page = (
    <ShortcutProvider>
      <Frame>{canRead || isOpen ? <Outlet /> : <NoPermission />}</Frame>
      {canRead ? (
        <Suspense>
          <OverrideDrawer />
        </Suspense>
      ) : null}
    </ShortcutProvider>
  );
  return canRead ? <LiveProvider>{page}</LiveProvider> : page;
}

function NoPermission() {
  return (
    <EmptyState title="You may not see this page" actions={<PageLink to={ADDRESSES.myFlags}>Go to My flags</PageLink>}>
      {permissionHint('read')} Ask an admin if you need access.
    </EmptyState>
  );
}
