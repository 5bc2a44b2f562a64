/** Identity of the signed-in user or token. */

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { createContext, type ReactNode, useContext, useEffect, useState } from 'react';
import { onSignedOut } from '../api/client';
import { keys } from '../api/keys';
import { meQuery } from '../api/queries';
import type { Identity } from '../api/types';
import { hasPermission, type Permission, permissionHint } from './roles';

const IdentityContext = createContext<Identity | null>(null);

/** Provides the identity to all components inside. */
export function IdentityProvider({
  identity,
  children,
}: {
  readonly identity: Identity;
  readonly children: ReactNode;
}) {
  return <IdentityContext value={identity}>{children}</IdentityContext>;
}

export function useIdentity(): Identity {
  const identity = useContext(IdentityContext);
  if (!identity) throw new Error('useIdentity requires an IdentityProvider');
  return identity;
}

export function useHasPermission(permission: Permission): boolean {
  return hasPermission(useIdentity().role, permission);
}

/** Returns why the caller lacks the permission, or `null` if the caller has it. */
export function useLock(permission: Permission): string | null {
  return useHasPermission(permission) ? null : permissionHint(permission);
}

/** Returns the identity, and whether the server has rejected the credential since the identity was loaded. */
export function useSession() {
  const query = useQuery(meQuery());
  const queryClient = useQueryClient();
  const [isExpired, setIsExpired] = useState(false);
  useEffect(
    () => onSignedOut(() => queryClient.getQueryData(keys.me) !== undefined && setIsExpired(true)),
    [queryClient],
  );

  /** Handles a sign-in. If a different user signed in, reloads the page to discard the previous user's data. */
  const onSignedIn = (identity: Identity) => {
    if (query.data && query.data.id !== identity.id) {
      location.assign('/');
      return;
    }
    queryClient.setQueryData(keys.me, identity);
    setIsExpired(false);
    void queryClient.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] !== keys.me[0] });
  };
  return { query, isExpired: isExpired && query.data !== undefined, onSignedIn };
}
