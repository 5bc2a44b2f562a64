import { createContext, createElement, type ReactNode, useCallback, useContext, useSyncExternalStore } from 'react';
import { ofType } from '../fallback.js';
import type { FlagClient, FlagValue, Json, OverrideInfo, Widened } from '../types.js';

const Client = createContext<FlagClient | null>(null);

/** Gives all components below it this client. Closing it is the application's business. */
export function FlagProvider({ client, children }: { client: FlagClient; children?: ReactNode }): ReactNode {
  return createElement(Client.Provider, { value: client }, children);
}

/** The client of the nearest `FlagProvider`. */
export function useFlagClient(): FlagClient {
  const client = useContext(Client);
  if (client === null) throw new Error('there is no FlagProvider above this component');
  return client;
}

/** What the user gets of this flag, as it changes; no other flag renders the component anew. */
export function useFlag(flagName: string): FlagValue;
export function useFlag<T extends Json>(flagName: string, fallback: T): Widened<T>;
export function useFlag(flagName: string, fallback?: Json): FlagValue {
  const value = useFlagState(flagName, (client) => client.getFlag(flagName));
  return fallback === undefined ? value : ofType(value, fallback);
}

/** The override that decides what the user gets of this flag, as it changes; `null` if none does. */
export function useOverrideInfo(flagName: string): OverrideInfo | null {
  return useFlagState(flagName, (client) => client.getOverrideInfo(flagName));
}

function useFlagState<T>(flagName: string, read: (client: FlagClient) => T): T {
  const client = useFlagClient();
  const subscribe = useCallback((changed: () => void) => client.subscribe(flagName, changed), [client, flagName]);
  const snapshot = () => read(client);
  return useSyncExternalStore(subscribe, snapshot, snapshot);
}
