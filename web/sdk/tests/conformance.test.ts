import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createFlagClient, type FlagClient } from '../src/index.js';
import { type AwaitedRequest, type Expected, readScenarios, type Start, type Step } from './scenario.js';
import { ScriptedServer } from './scripted.js';

const settleIo = setImmediate;

/** Lets everything happen that needs no time. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 4; turn += 1) {
    await new Promise((resolve) => settleIo(resolve));
    await vi.advanceTimersByTimeAsync(0);
  }
}

class Run {
  private readonly server = new ScriptedServer();
  private readonly kept = new Map<string, string>();
  private client: FlagClient | null = null;
  private changed = new Set<string>();
  private ready: boolean | null = null;
  private refreshed: boolean | undefined;

  async step(step: Step): Promise<void> {
    expect(Object.keys(step), 'one thing in a step').toHaveLength(1);
    if (step.start) this.start(step.start);
    else if (step.answer) this.server.answer(step.answer);
    else if (step.fail === 'everything') this.server.goAway();
    else if (step.fail) this.server.fail(step.fail);
    else if (step.send) this.sendText(eventText(step.send));
    else if (step.send_text !== undefined) this.sendText(step.send_text);
    else if (step.send_base64) this.server.send(Buffer.from(step.send_base64, 'base64'));
    else if (step.send_bytewise)
      for (const byte of Buffer.from(step.send_bytewise)) this.server.send(Uint8Array.of(byte));
    else if (step.cut) this.server.cut();
    else if (step.end) this.server.end();
    else if (step.advance !== undefined) await vi.advanceTimersByTimeAsync(step.advance);
    else if (step.wall_clock !== undefined) vi.setSystemTime(Date.now() + step.wall_clock);
    else if (step.await_request) await this.awaitRequest(step.await_request);
    else if (step.no_request_for !== undefined) await this.noRequestFor(step.no_request_for);
    else if (step.refresh)
      void this.client?.refresh().then((answered) => {
        this.refreshed = answered;
      });
    else if (step.reset) this.client?.reset();
    else if (step.set_token) this.client?.setToken(step.set_token);
    else if (step.spoil_storage) for (const key of this.kept.keys()) this.kept.set(key, step.spoil_storage);
    else if (step.close) this.client?.close();
    else if (step.expect) this.expect(step.expect);
    else throw new Error(`no such step: ${JSON.stringify(step)}`);
    await settle();
  }

  private start({ token, storage, userId, baseUrl, wall_clock }: Start): void {
    if (wall_clock) vi.setSystemTime(Date.now() + wall_clock);
    const { kept } = this;
    const store = {
      getItem: (key: string) => kept.get(key) ?? null,
      setItem: (key: string, value: string) => void kept.set(key, value),
      removeItem: (key: string) => void kept.delete(key),
    };
    const client = createFlagClient({
      baseUrl: baseUrl ?? 'https://flags.example.com/',
      fetch: this.server.fetch,
      ...(token === undefined ? {} : { token }),
      ...(storage ? { storage: store } : {}),
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
    expect(this.server.asksFor(to), `a request to ${to} before ${after} ms`).toBe(
      after === 0 && this.server.asksFor(to),
    );
    for (let waited = after; !this.server.asksFor(to) && waited <= within; waited += 10) {
      await vi.advanceTimersByTimeAsync(10);
      await settle();
    }
    expect(this.server.asksFor(to), `a request to ${to} within ${within} ms`).toBe(true);
  }

  private async noRequestFor(wait: number): Promise<void> {
    const before = this.server.requests;
    await vi.advanceTimersByTimeAsync(wait);
    await settle();
    expect(this.server.requests - before, `requests in ${wait} ms`).toBe(0);
  }

  private expect(expected: Expected): void {
    const { client } = this;
    if (!client) throw new Error('the client was not started');
    const seen: Record<string, unknown> = {
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
      stored: this.kept.size,
    };
    const wanted = { ...expected, ...(expected.revision ? { revision: expected.revision.replaceAll('-', '') } : {}) };
    expect(Object.fromEntries(Object.keys(wanted).map((key) => [key, seen[key] ?? null]))).toEqual(wanted);
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

function eventText({ event, id, data }: { event: string; id?: string; data: unknown }): string {
  return `event: ${event}\n${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
}

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] }));
afterEach(() => void vi.useRealTimers());

for (const { file, now, cases } of readScenarios()) {
  describe(file, () => {
    test.each(cases)('$name', async ({ steps }) => {
      vi.setSystemTime(new Date(now));
      const run = new Run();
      try {
        for (const [place, step] of steps.entries()) {
          await run.step(step).catch((cause) => {
            throw new Error(`step ${place + 1} ${JSON.stringify(step).slice(0, 300)}: ${cause.message}`, { cause });
          });
        }
      } finally {
        run.close();
      }
    });
  });
}
