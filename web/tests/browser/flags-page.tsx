import { createFlagClient } from '@feature-flags/sdk';
import { FlagProvider, useFlag, useFlagClient, useOverrideInfo } from '@feature-flags/sdk/react';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

/**
 * URL parameters: `base` (URL of the server), `token`, `persist` (use localStorage), `no-sharing` (one stream per tab).
 */
const query = new URLSearchParams(location.search);
const client = createFlagClient({
  baseUrl: query.get('base') ?? '',
  token: query.get('token') ?? '',
  shareTabs: !query.has('no-sharing'),
  ...(query.has('persist') ? { storage: 'local' as const } : {}),
});

function StaleStatus() {
  const client = useFlagClient();
  const [stale, setStale] = useState(client.stale);
  useEffect(() => client.subscribe((change) => setStale(change.stale)), [client]);
  return <dd id="stale">{String(stale)}</dd>;
}

function Flags() {
  const override = useOverrideInfo('ui.theme');
  return (
    <dl>
      <dt>Theme</dt>
      <dd id="theme">{useFlag('ui.theme', 'unknown')}</dd>
      <dt>Override</dt>
      <dd id="override">{override ? `since ${override.createdAt}` : 'none'}</dd>
      <dt>Stale</dt>
      <StaleStatus />
    </dl>
  );
}

createRoot(document.querySelector('main') ?? document.body).render(
  <FlagProvider client={client}>
    <h1>My flags</h1>
    <Flags />
  </FlagProvider>,
);
