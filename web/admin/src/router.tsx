/** Routes: the pages, their paths and their search parameters. */

import { createRootRoute, createRoute, createRouter, lazyRouteComponent, Navigate } from '@tanstack/react-router';
import * as v from 'valibot';
import { ADDRESSES } from './addresses';
import {
  flagsSearch,
  myFlagsSearch,
  overridesSearch,
  parseSearch,
  rootSearch,
  schedulesSearch,
  signInSearch,
  stringifySearch,
  userSearch,
  usersSearch,
} from './searchParams';
import { hasPermission } from './session/roles';
import { useIdentity } from './session/session';
import { App } from './shell/App';
import { NotFoundPage } from './shell/NotFoundPage';
import { PageError } from './shell/PageError';

const rootRoute = createRootRoute({
  component: App,
  notFoundComponent: NotFoundPage,
  errorComponent: PageError,
  validateSearch: (search) => v.parse(rootSearch, search),
});

function HomeRedirect() {
  const { role } = useIdentity();
  return <Navigate to={hasPermission(role, 'read') ? ADDRESSES.flags : ADDRESSES.myFlags} replace />;
}

const homeRoute = createRoute({ getParentRoute: () => rootRoute, path: ADDRESSES.home, component: HomeRedirect });

const signInRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.signIn,
  validateSearch: (search) => v.parse(signInSearch, search),
  component: lazyRouteComponent(() => import('./features/sign-in/SignInPage'), 'SignInPage'),
});

const flagsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.flags,
  validateSearch: (search) => v.parse(flagsSearch, search),
  component: lazyRouteComponent(() => import('./features/flags/FlagsPage'), 'FlagsPage'),
});

const scheduledChangesRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.scheduledChanges,
  validateSearch: (search) => v.parse(schedulesSearch, search),
  component: lazyRouteComponent(() => import('./features/schedules/ScheduledChangesPage'), 'ScheduledChangesPage'),
});

const userOverridesRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.userOverrides,
  validateSearch: (search) => v.parse(overridesSearch, search),
  component: lazyRouteComponent(() => import('./features/overrides/UserOverridesPage'), 'UserOverridesPage'),
});

const flagRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.flag,
  component: lazyRouteComponent(() => import('./features/flags/FlagPage'), 'FlagOverviewPage'),
});

const flagOverridesRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.flagOverrides,
  validateSearch: (search) => v.parse(overridesSearch, search),
  component: lazyRouteComponent(() => import('./features/flags/FlagPage'), 'FlagOverridesPage'),
});

const usersRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.users,
  validateSearch: (search) => v.parse(usersSearch, search),
  component: lazyRouteComponent(() => import('./features/users/UsersPage'), 'UsersPage'),
});

const userRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.user,
  validateSearch: (search) => v.parse(userSearch, search),
  component: lazyRouteComponent(() => import('./features/users/UserPage'), 'UserFlagsPage'),
});

const userOverridesOfUserRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.userOverridesOfUser,
  validateSearch: (search) => v.parse(overridesSearch, search),
  component: lazyRouteComponent(() => import('./features/users/UserPage'), 'UserOverridesOfUserPage'),
});

const myFlagsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.myFlags,
  validateSearch: (search) => v.parse(myFlagsSearch, search),
  component: lazyRouteComponent(() => import('./features/my-flags/MyFlagsPage'), 'MyFlagsPage'),
});

const profileRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: ADDRESSES.profile,
  component: lazyRouteComponent(() => import('./features/profile/ProfilePage'), 'ProfilePage'),
});

export const routeTree = rootRoute.addChildren([
  homeRoute,
  signInRoute,
  flagsRoute,
  scheduledChangesRoute,
  userOverridesRoute,
  flagRoute,
  flagOverridesRoute,
  usersRoute,
  userRoute,
  userOverridesOfUserRoute,
  myFlagsRoute,
  profileRoute,
]);

export const router = createRouter({
  routeTree,
  parseSearch,
  stringifySearch,
  defaultPreload: 'intent',
  scrollRestoration: true,
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
