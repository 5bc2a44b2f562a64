/** Format of the cases in tests/vectors/client. Its README describes the steps. */

import { readdirSync, readFileSync } from 'node:fs';
import type { OverrideInfo } from '../src/index.js';

/** Options of a client. */
export interface StartOptions {
  token?: string;
  storage?: boolean;
  userId?: string;
  baseUrl?: string;
  /** Milliseconds by which the client's wall clock is ahead of the server's. */
  wall_clock_offset?: number;
}

export interface ScriptedResponse {
  to: 'me' | 'stream';
  status: number;
  headers?: Record<string, string>;
  json?: unknown;
  text?: string;
  /** Expected `Authorization` of the request. */
  authorization?: string;
  /** Expected `Last-Event-ID` of the request. */
  last_event_id?: string;
}

/** Expected state of the client. Absent members are not compared. */
export interface Expected {
  flags?: Record<string, unknown>;
  /** Names of flags that must be undefined. */
  absent?: string[];
  stale?: boolean;
  overrides?: Record<string, OverrideInfo | null>;
  /** Sorted names of the flags that listeners received since the previous `expect`. */
  changed?: string[];
  user_id?: string | null;
  revision?: string | null;
  /** Result of `ready()`. `null` while it is pending. */
  ready?: boolean | null;
  /** Result of the last `refresh()`. */
  refreshed?: boolean;
  stream_open?: boolean;
  /** Number of entries in the storage. */
  stored_entries?: number;
}

/** Range in which a request must arrive; milliseconds. */
export interface AwaitedRequest {
  to: 'me' | 'stream';
  after: number;
  within: number;
}

export interface Steps {
  start: StartOptions;
  respond: ScriptedResponse;
  fail_request: 'me' | 'stream';
  go_offline: true;
  send_event: { event: string; id?: string; data: unknown };
  send_text: string;
  send_base64: string;
  send_bytewise: string;
  disconnect: true;
  end_stream: true;
  /** Milliseconds. */
  advance: number;
  /** Milliseconds. */
  shift_wall_clock: number;
  await_request: AwaitedRequest;
  /** Milliseconds. */
  no_request_for: number;
  refresh: true;
  set_token: string;
  reset: true;
  /** Text that replaces every entry. */
  corrupt_storage: string;
  close: true;
  expect: Expected;
}

/** Object with exactly one of the members of `Steps`. */
export type Step = Partial<Steps>;

export interface Scenario {
  name: string;
  steps: Step[];
}

const FOLDER = new URL('../../../tests/vectors/client/', import.meta.url);

/** Reads the cases of all files. `now` is the initial time of wall clock and server. */
export function readScenarios(): { file: string; now: string; cases: Scenario[] }[] {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.json'));
  return files.map((file) => ({ file, ...JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) }));
}
