/** Page that uses the official web provider. The test controls it through `window.provider`. */

import { OFREPWebProvider, type OFREPWebProviderOptions } from '@openfeature/ofrep-web-provider';
import { type JsonValue, OpenFeature, ProviderEvents } from '@openfeature/web-sdk';

export interface StartOptions {
  baseUrl: string;
  token: string;
  targetingKey: string;
  providerOptions?: Partial<OFREPWebProviderOptions>;
}

const testProvider = {
  /** Names of the provider events, in order. */
  events: [] as string[],

  /** Starts the provider. Resolves to `null` when it is ready, or to the error. */
  async start({ baseUrl, token, targetingKey, providerOptions }: StartOptions): Promise<string | null> {
    for (const event of Object.values(ProviderEvents))
      OpenFeature.addHandler(event, () => testProvider.events.push(event));
    const headers: [string, string][] = [['Authorization', `Bearer ${token}`]];
    const ofrepProvider = new OFREPWebProvider({ baseUrl, headers, ...providerOptions });
    try {
      await OpenFeature.setProviderAndWait(ofrepProvider, { targetingKey });
      return null;
    } catch (error) {
      return String(error);
    }
  },

  details(flag: string, defaultValue: boolean | string | number | object) {
    const client = OpenFeature.getClient();
    const details =
      typeof defaultValue === 'boolean'
        ? client.getBooleanDetails(flag, defaultValue)
        : typeof defaultValue === 'string'
          ? client.getStringDetails(flag, defaultValue)
          : typeof defaultValue === 'number'
            ? client.getNumberDetails(flag, defaultValue)
            : client.getObjectDetails(flag, defaultValue as JsonValue);
    return JSON.parse(JSON.stringify(details));
  },

  setContext: (context: Record<string, string>) => OpenFeature.setContext(context),
};

declare global {
  interface Window {
    provider: typeof testProvider;
  }
}
window.provider = testProvider;
