// @vitest-environment jsdom
import { act, cleanup, render, screen } from '@testing-library/react';
import { afterEach, expect, test } from 'vitest';
import { createFlagClient, type FlagClient } from '../src/index.js';
import { FlagProvider, useFlag, useOverrideInfo } from '../src/react/index.js';
import { ScriptedServer } from './scripted.js';

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

function flag(value: boolean | string, more = {}) {
  return {
    value,
    flag_type: typeof value === 'string' ? 'string' : 'boolean',
    variant: null,
    source: 'default',
    ...more,
  };
}

const OVERRIDE = {
  source: 'override',
  override: { created_at: '2029-01-01T00:00:00.000000Z', updated_at: '2029-01-01T00:00:00.000000Z', expires_at: null },
};

async function started(): Promise<{ client: FlagClient; server: ScriptedServer }> {
  const server = new ScriptedServer();
  const client = createFlagClient({ baseUrl: 'http://localhost', token: 't', fetch: server.fetch, shareTabs: false });
  await expect.poll(() => server.asksFor('me')).toBe(true);
  server.answer({
    to: 'me',
    status: 200,
    json: {
      user_id: 'u',
      revision: `${EPOCH}:1`,
      evaluated_at: '2030-01-01T00:00:00.000000Z',
      valid_until: null,
      stale: false,
      flags: { 'ui.dark': flag(false), 'text.title': flag('hello') },
    },
  });
  await expect.poll(() => server.asksFor('stream')).toBe(true);
  server.answer({ to: 'stream', status: 200 });
  await client.ready();
  return { client, server };
}

function change(revision: number, set: object): Uint8Array {
  const at = `2030-01-01T00:00:0${revision}.000000Z`;
  const data = { revision: `${EPOCH}:${revision}`, evaluated_at: at, set, unset: [], valid_until: null };
  return Buffer.from(`event: change\ndata: ${JSON.stringify(data)}\n\n`);
}

afterEach(cleanup);

test('a change renders what it concerns, and nothing else', async () => {
  const { client, server } = await started();
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
    server.send(change(2, { 'text.title': flag('news') }));
    await expect.poll(() => client.getFlag('text.title')).toBe('news');
  });
  expect(screen.getByText('title: news')).toBeTruthy();
  expect(renders).toEqual({ ...before, title: before.title + 1 });

  await act(async () => {
    server.send(change(3, { 'ui.dark': flag(true, OVERRIDE) }));
    await expect.poll(() => client.getFlag('ui.dark')).toBe(true);
  });
  expect(screen.getByText('dark: true')).toBeTruthy();
  expect(screen.getByText('override: until null')).toBeTruthy();
  expect(renders).toEqual({ ...before, dark: before.dark + 1, title: before.title + 1, override: before.override + 1 });
  client.close();
});

test('a fallback made anew at every rendering does not render for ever', async () => {
  const { client } = await started();
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

test('another client in the provider is listened to instead', async () => {
  const [first, second] = [await started(), await started()];
  const shown = (client: FlagClient) => (
    <FlagProvider client={client}>
      <Title />
    </FlagProvider>
  );
  const { rerender } = render(shown(first.client));
  rerender(shown(second.client));
  await act(async () => {
    second.server.send(change(2, { 'text.title': flag('second') }));
    await expect.poll(() => second.client.getFlag('text.title')).toBe('second');
  });
  expect(screen.getByText('title: second')).toBeTruthy();
  first.client.close();
  second.client.close();
});

test('without a provider it is said what is missing', () => {
  expect(() => render(<Title />)).toThrow('there is no FlagProvider above this component');
});
