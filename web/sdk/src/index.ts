export { createFlagClient } from './client.js';
export type {
  FlagClient,
  FlagClientError,
  FlagClientOptions,
  FlagListener,
  FlagStorage,
  FlagsChanged,
  FlagValue,
  Json,
  OverrideInfo,
  Token,
  Widened,
} from './types.js';
