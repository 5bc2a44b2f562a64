'use client';

import { createContext, createElement, type ReactNode, useCallback, useContext, useSyncExternalStore } from 'react';
import { ofType } from '../fallback.js';
import type { FlagClient, FlagValue, Json, OverrideInfo, Widened } from '../types.js';

const Client = createContext<FlagClient | null>(null);
const Initial = createContext<Record<string, FlagValue>>({});

export interface FlagProviderProps {
  client: FlagClient;
  /**
   * What a page that was rendered on a server begins with, there and here alike: `getUserFlags()` of that moment. Without
   * it such a page begins with fallbacks.
   */
  initialFlags?: Record<string, FlagValue>;
  children?: ReactNode;
}

const NONE = {};

/** Gives all components below it this client. Closing it is the application's business. */
export function FlagProvider({ client, initialFlags = NONE, children }: FlagProviderProps): ReactNode {
  const inner = createElement(Initial.Provider, { value: initialFlags }, children);
  return createElement(Client.Provider, { value: client }, inner);
}

/** The client of the nearest `FlagProvider`. */
export function useFlagClient(): FlagClient {
  const client = useContext(Client);
  if (client === null) throw new Error('there is no FlagProvider above this component');
  return client;
}

/** What the user gets of this flag, as it changes; no other flag renders the component anew. */
export function useFlag(flagName: string): FlagValue;
export function useFlag<T extends Json | object>(flagName: string, fallback: T): Widened<T>;
export function useFlag(flagName: string, fallback?: Json | object): FlagValue | object {
  const initial = useContext(Initial)[flagName];
  const value = useFlagState(flagName, (client) => client.getFlag(flagName), initial);
  return fallback === undefined ? value : ofType(value, fallback);
}

/** The override that decides what the user gets of this flag, as it changes; `null` if none does. */
export function useOverrideInfo(flagName: string): OverrideInfo | null {
  return useFlagState(flagName, (client) => client.getOverrideInfo(flagName), null);
}

function useFlagState<T>(flagName: string, read: (client: FlagClient) => T, initial: T): T {
  const client = useFlagClient();
  const subscribe = useCallback((changed: () => void) => client.subscribe(flagName, changed), [client, flagName]);
  return useSyncExternalStore(
    subscribe,
    () => read(client),
    () => initial,
  );
}
