import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createFlagClient, type FlagClient } from '../src/index.js';
import { type AwaitedRequest, type Expected, readScenarios, type StartOptions, type Step } from './scenario.js';
import { ScriptedServer } from './scripted-server.js';

const realSetImmediate = setImmediate;

/** Runs pending promises, I/O callbacks and timers that are already due. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 4; turn += 1) {
    await new Promise((resolve) => realSetImmediate(resolve));
    await vi.advanceTimersByTimeAsync(0);
  }
}

class ScenarioRunner {
  private readonly server = new ScriptedServer();
  private readonly storedEntries = new Map<string, string>();
  private client: FlagClient | null = null;
  private changed = new Set<string>();
  private ready: boolean | null = null;
  private refreshed: boolean | undefined;

  async runStep(step: Step): Promise<void> {
    expect(Object.keys(step), 'a step has exactly one member').toHaveLength(1);
    if (step.start) this.start(step.start);
    else if (step.respond) this.server.respond(step.respond);
    else if (step.fail_request) this.server.failRequest(step.fail_request);
    else if (step.go_offline) this.server.goOffline();
    else if (step.send_event) this.sendText(formatEvent(step.send_event));
    else if (step.send_text !== undefined) this.sendText(step.send_text);
    else if (step.send_base64) this.server.send(Buffer.from(step.send_base64, 'base64'));
    else if (step.send_bytewise)
      for (const byte of Buffer.from(step.send_bytewise)) this.server.send(Uint8Array.of(byte));
    else if (step.disconnect) this.server.disconnect();
    else if (step.end_stream) this.server.endStream();
    else if (step.advance !== undefined) await vi.advanceTimersByTimeAsync(step.advance);
    else if (step.shift_wall_clock !== undefined) vi.setSystemTime(Date.now() + step.shift_wall_clock);
    else if (step.await_request) await this.awaitRequest(step.await_request);
    else if (step.no_request_for !== undefined) await this.expectNoRequestFor(step.no_request_for);
    else if (step.refresh)
      void this.client?.refresh().then((refreshed) => {
        this.refreshed = refreshed;
      });
    else if (step.reset) this.client?.reset();
    else if (step.set_token) this.client?.setToken(step.set_token);
    else if (step.corrupt_storage)
      for (const key of this.storedEntries.keys()) this.storedEntries.set(key, step.corrupt_storage);
    else if (step.close) this.client?.close();
    else if (step.expect) this.compare(step.expect);
    else throw new Error(`unknown step: ${JSON.stringify(step)}`);
    await settle();
  }

  private start({ token, storage, userId, baseUrl, wall_clock_offset }: StartOptions): void {
    if (wall_clock_offset) vi.setSystemTime(Date.now() + wall_clock_offset);
    const { storedEntries } = this;
    const memoryStorage = {
      getItem: (key: string) => storedEntries.get(key) ?? null,
      setItem: (key: string, value: string) => void storedEntries.set(key, value),
      removeItem: (key: string) => void storedEntries.delete(key),
    };
    const client = createFlagClient({
      baseUrl: baseUrl ?? 'https://flags.example.com/',
      fetch: this.server.fetch,
      ...(token === undefined ? {} : { token }),
      ...(storage ? { storage: memoryStorage } : {}),
      ...(userId === undefined ? {} : { userId }),
    });
    this.client = client;
    this.ready = null;
    client.subscribe(({ flags }) => {
      for (const name of flags) this.changed.add(name);
    });
    void client.ready().then((ready) => {
      this.ready = ready;
    });
  }

  private sendText(text: string): void {
    this.server.send(Buffer.from(text));
  }

  private async awaitRequest({ to, after, within }: AwaitedRequest): Promise<void> {
    await vi.advanceTimersByTimeAsync(Math.max(0, after - 1));
    await settle();
    expect(this.server.hasPendingRequest(to), `a request to ${to} before ${after} ms`).toBe(
      after === 0 && this.server.hasPendingRequest(to),
    );
    for (let waited = after; !this.server.hasPendingRequest(to) && waited <= within; waited += 10) {
      await vi.advanceTimersByTimeAsync(10);
      await settle();
    }
    expect(this.server.hasPendingRequest(to), `a request to ${to} within ${within} ms`).toBe(true);
  }

  private async expectNoRequestFor(milliseconds: number): Promise<void> {
    const before = this.server.requestCount;
    await vi.advanceTimersByTimeAsync(milliseconds);
    await settle();
    expect(this.server.requestCount - before, `requests in ${milliseconds} ms`).toBe(0);
  }

  private compare(expected: Expected): void {
    const { client } = this;
    if (!client) throw new Error('the client is not started');
    const actual: Record<string, unknown> = {
      flags: { ...client.getUserFlags() },
      absent: expected.absent?.filter((name) => client.getFlag(name) === undefined && !client.hasOverride(name)),
      stale: client.stale,
      overrides: Object.fromEntries(
        Object.keys(expected.overrides ?? {}).map((name) => [name, client.getOverrideInfo(name)]),
      ),
      changed: [...this.changed].sort(),
      user_id: client.userId,
      revision: client.revision,
      ready: this.ready,
      refreshed: this.refreshed,
      stream_open: this.server.streamOpen,
      stored_entries: this.storedEntries.size,
    };
    const normalized = {
      ...expected,
      ...(expected.revision ? { revision: expected.revision.replaceAll('-', '') } : {}),
    };
    expect(Object.fromEntries(Object.keys(normalized).map((key) => [key, actual[key] ?? null]))).toEqual(normalized);
    for (const [name, value] of Object.entries(expected.flags ?? {})) expect(client.getFlag(name)).toEqual(value);
    for (const [name, info] of Object.entries(expected.overrides ?? {})) {
      expect(client.hasOverride(name)).toBe(info !== null);
    }
    this.changed = new Set();
  }

  close(): void {
    this.client?.close();
  }
}

function formatEvent({ event, id, data }: { event: string; id?: string; data: unknown }): string {
  return `event: ${event}\n${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
}

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] }));
afterEach(() => void vi.useRealTimers());

for (const { file, now, cases } of readScenarios()) {
  describe(file, () => {
    test.each(cases)('$name', async ({ steps }) => {
      vi.setSystemTime(new Date(now));
      const runner = new ScenarioRunner();
      try {
        for (const [index, step] of steps.entries()) {
          await runner.runStep(step).catch((cause) => {
            throw new Error(`step ${index + 1} ${JSON.stringify(step).slice(0, 300)}: ${cause.message}`, { cause });
          });
        }
      } finally {
        runner.close();
      }
    });
  });
}
