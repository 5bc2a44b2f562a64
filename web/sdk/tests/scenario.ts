/** The form of the cases in tests/vectors/client, which clients in all languages run. */

import { readdirSync, readFileSync } from 'node:fs';
import type { OverrideInfo } from '../src/index.js';

/** What a client is started with. */
export interface Start {
  token?: string;
  storage?: boolean;
  userId?: string;
  baseUrl?: string;
  /** How far the wall clock is from the server's, in milliseconds. */
  wall_clock?: number;
}

export interface Answer {
  to: 'me' | 'stream';
  status: number;
  headers?: Record<string, string>;
  json?: unknown;
  text?: string;
  authorization?: string;
  last_event_id?: string;
}

export interface Expected {
  flags?: Record<string, unknown>;
  absent?: string[];
  stale?: boolean;
  overrides?: Record<string, OverrideInfo | null>;
  /** The flags of whose change listeners were told since the last `expect`. */
  changed?: string[];
  user_id?: string | null;
  revision?: string | null;
  /** What `ready()` has resolved to; `null` while it has not. */
  ready?: boolean | null;
  refreshed?: boolean;
  stream_open?: boolean;
  /** How many entries the store has. */
  stored?: number;
}

export interface AwaitedRequest {
  to: 'me' | 'stream';
  after: number;
  within: number;
}

export interface Steps {
  start: Start;
  answer: Answer;
  fail: 'me' | 'stream' | 'everything';
  send: { event: string; id?: string; data: unknown };
  send_text: string;
  send_base64: string;
  send_bytewise: string;
  cut: true;
  end: true;
  advance: number;
  wall_clock: number;
  await_request: AwaitedRequest;
  no_request_for: number;
  refresh: true;
  set_token: string;
  reset: true;
  spoil_storage: string;
  close: true;
  expect: Expected;
}

/** One step: an object with one of these members. */
export type Step = Partial<Steps>;

export interface Scenario {
  name: string;
  steps: Step[];
}

const FOLDER = new URL('../../../tests/vectors/client/', import.meta.url);

/** All files, each with its cases. */
export function readScenarios(): { file: string; now: string; cases: Scenario[] }[] {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.json'));
  return files.map((file) => ({ file, ...JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) }));
}
