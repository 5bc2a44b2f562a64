/** A page that uses the official provider for browsers; the test talks to `window.provider`. */

import { OFREPWebProvider, type OFREPWebProviderOptions } from '@openfeature/ofrep-web-provider';
import { type JsonValue, OpenFeature, ProviderEvents } from '@openfeature/web-sdk';

export interface Start {
  baseUrl: string;
  token: string;
  targetingKey: string;
  more?: Partial<OFREPWebProviderOptions>;
}

const provider = {
  /** The names of the events that there were. */
  events: [] as string[],

  /** Resolves to why it did not become ready, or `null`. */
  async start({ baseUrl, token, targetingKey, more }: Start): Promise<string | null> {
    for (const event of Object.values(ProviderEvents)) OpenFeature.addHandler(event, () => provider.events.push(event));
    const headers: [string, string][] = [['Authorization', `Bearer ${token}`]];
    const made = new OFREPWebProvider({ baseUrl, headers, ...more });
    try {
      await OpenFeature.setProviderAndWait(made, { targetingKey });
      return null;
    } catch (error) {
      return String(error);
    }
  },

  details(flag: string, fallback: boolean | string | number | object) {
    const client = OpenFeature.getClient();
    const details =
      typeof fallback === 'boolean'
        ? client.getBooleanDetails(flag, fallback)
        : typeof fallback === 'string'
          ? client.getStringDetails(flag, fallback)
          : typeof fallback === 'number'
            ? client.getNumberDetails(flag, fallback)
            : client.getObjectDetails(flag, fallback as JsonValue);
    return JSON.parse(JSON.stringify(details));
  },

  setContext: (context: Record<string, string>) => OpenFeature.setContext(context),
};

declare global {
  interface Window {
    provider: typeof page;
  }
}
const page = provider;
window.provider = page;
