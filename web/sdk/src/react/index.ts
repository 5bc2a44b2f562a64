'use client';

import { createContext, createElement, type ReactNode, useCallback, useContext, useSyncExternalStore } from 'react';
import { valueOrFallback } from '../fallback.js';
import type { FlagClient, FlagValue, Json, OverrideInfo, Widened } from '../types.js';

const ClientContext = createContext<FlagClient | null>(null);
const InitialFlagsContext = createContext<Record<string, FlagValue>>({});

/** Props of `FlagProvider`. */
export interface FlagProviderProps {
  /** Client that the hooks use. The provider does not close it. */
  client: FlagClient;
  /**
   * Values for server-side rendering and for hydration in the browser, for example the result of `getUserFlags()` on
   * the server. Default: none, so both render the fallbacks first.
   */
  initialFlags?: Record<string, FlagValue>;
  /** Components that use the hooks. */
  children?: ReactNode;
}

const NO_FLAGS = {};

/** Provides a client to the hooks in all components below. The application closes the client. */
export function FlagProvider({ client, initialFlags = NO_FLAGS, children }: FlagProviderProps): ReactNode {
  const inner = createElement(InitialFlagsContext.Provider, { value: initialFlags }, children);
  return createElement(ClientContext.Provider, { value: client }, inner);
}

/**
 * Returns the client of the nearest `FlagProvider`.
 *
 * @throws Error if there is no `FlagProvider` above the component. The other hooks throw it too.
 */
export function useFlagClient(): FlagClient {
  const client = useContext(ClientContext);
  if (client === null) throw new Error('flag hooks must be used inside a FlagProvider');
  return client;
}

/**
 * Returns the flag's value, or `undefined` if the flag does not exist. Re-renders the component when this flag changes.
 */
export function useFlag(flagName: string): FlagValue;
/**
 * Returns the flag's value, or `fallback` if the flag does not exist or its value has another type. Re-renders the
 * component when this flag changes.
 */
export function useFlag<T extends Json | object>(flagName: string, fallback: T): Widened<T>;
export function useFlag(flagName: string, fallback?: Json | object): FlagValue | object {
  const initial = useContext(InitialFlagsContext)[flagName];
  const value = useFlagState(flagName, (client) => client.getFlag(flagName), initial);
  return fallback === undefined ? value : valueOrFallback(value, fallback);
}

/**
 * Returns the active override that supplies the flag's value, or `null`. Re-renders the component when the value or
 * override changes.
 */
export function useOverrideInfo(flagName: string): OverrideInfo | null {
  return useFlagState(flagName, (client) => client.getOverrideInfo(flagName), null);
}

function useFlagState<T>(flagName: string, read: (client: FlagClient) => T, initial: T): T {
  const client = useFlagClient();
  const subscribe = useCallback((listener: () => void) => client.subscribe(flagName, listener), [client, flagName]);
  return useSyncExternalStore(
    subscribe,
    () => read(client),
    () => initial,
  );
}
