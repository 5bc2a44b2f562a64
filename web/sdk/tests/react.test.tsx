// @vitest-environment jsdom
import { act, cleanup, render, screen } from '@testing-library/react';
import { afterEach, expect, test } from 'vitest';
import { createFlagClient, type FlagClient } from '../src/index.js';
import { FlagProvider, useFlag, useOverrideInfo } from '../src/react/index.js';
import { ScriptedServer } from './scripted-server.js';

const EPOCH = '11111111111141118111111111111111';
const renders = { dark: 0, title: 0, override: 0, config: 0 };

function Dark() {
  renders.dark += 1;
  return <p>dark: {String(useFlag('ui.dark', false))}</p>;
}

function Title() {
  renders.title += 1;
  return <p>title: {useFlag('text.title', 'none')}</p>;
}

function Override() {
  renders.override += 1;
  const info = useOverrideInfo('ui.dark');
  return <p>override: {info ? `until ${info.expiresAt}` : 'none'}</p>;
}

function Config() {
  renders.config += 1;
  const config = useFlag('no.such', { limit: 3 });
  return <p>limit: {config.limit}</p>;
}

function flagResult(value: boolean | string, extraFields = {}) {
  return {
    value,
    flag_type: typeof value === 'string' ? 'string' : 'boolean',
    variant: null,
    source: 'default',
    ...extraFields,
  };
}

const OVERRIDE = {
  source: 'override',
  override: { created_at: '2029-01-01T00:00:00.000000Z', updated_at: '2029-01-01T00:00:00.000000Z', expires_at: null },
};

async function startClient(): Promise<{ client: FlagClient; server: ScriptedServer }> {
  const server = new ScriptedServer();
  const client = createFlagClient({ baseUrl: 'http://localhost', token: 't', fetch: server.fetch, shareTabs: false });
  await expect.poll(() => server.hasPendingRequest('me')).toBe(true);
  server.respond({
    to: 'me',
    status: 200,
    json: {
      user_id: 'u',
      revision: `${EPOCH}:1`,
      evaluated_at: '2030-01-01T00:00:00.000000Z',
      valid_until: null,
      stale: false,
      flags: { 'ui.dark': flagResult(false), 'text.title': flagResult('hello') },
    },
  });
  await expect.poll(() => server.hasPendingRequest('stream')).toBe(true);
  server.respond({ to: 'stream', status: 200 });
  await client.ready();
  return { client, server };
}

function changeEvent(revision: number, set: object): Uint8Array {
  const evaluatedAt = `2030-01-01T00:00:0${revision}.000000Z`;
  const data = { revision: `${EPOCH}:${revision}`, evaluated_at: evaluatedAt, set, unset: [], valid_until: null };
  return Buffer.from(`event: change\ndata: ${JSON.stringify(data)}\n\n`);
}

afterEach(cleanup);

test('a change re-renders only the components that use the flag', async () => {
  const { client, server } = await startClient();
  render(
    <FlagProvider client={client}>
      <Dark />
      <Title />
      <Override />
    </FlagProvider>,
  );
  expect(screen.getByText('dark: false')).toBeTruthy();
  expect(screen.getByText('title: hello')).toBeTruthy();
  const before = { ...renders };

  await act(async () => {
    server.send(changeEvent(2, { 'text.title': flagResult('updated') }));
    await expect.poll(() => client.getFlag('text.title')).toBe('updated');
  });
  expect(screen.getByText('title: updated')).toBeTruthy();
  expect(renders).toEqual({ ...before, title: before.title + 1 });

  await act(async () => {
    server.send(changeEvent(3, { 'ui.dark': flagResult(true, OVERRIDE) }));
    await expect.poll(() => client.getFlag('ui.dark')).toBe(true);
  });
  expect(screen.getByText('dark: true')).toBeTruthy();
  expect(screen.getByText('override: until null')).toBeTruthy();
  expect(renders).toEqual({ ...before, dark: before.dark + 1, title: before.title + 1, override: before.override + 1 });
  client.close();
});

test('a fallback that is a new object in each render does not cause an endless loop', async () => {
  const { client } = await startClient();
  const before = renders.config;
  render(
    <FlagProvider client={client}>
      <Config />
    </FlagProvider>,
  );
  expect(screen.getByText('limit: 3')).toBeTruthy();
  expect(renders.config).toBe(before + 1);
  client.close();
});

test('a changed client of the provider replaces the subscription', async () => {
  const [first, second] = [await startClient(), await startClient()];
  const app = (client: FlagClient) => (
    <FlagProvider client={client}>
      <Title />
    </FlagProvider>
  );
  const { rerender } = render(app(first.client));
  rerender(app(second.client));
  await act(async () => {
    second.server.send(changeEvent(2, { 'text.title': flagResult('second') }));
    await expect.poll(() => second.client.getFlag('text.title')).toBe('second');
  });
  expect(screen.getByText('title: second')).toBeTruthy();
  first.client.close();
  second.client.close();
});

test('hooks throw outside of a provider', () => {
  expect(() => render(<Title />)).toThrow('flag hooks must be used inside a FlagProvider');
});
