/** Phases of the connection, and the decisions that depend on them alone. Pure functions. */

export type Phase =
  /** Not started, or suspended. */
  | { readonly kind: 'idle' }
  /** An attempt determines the token and, if necessary, requests a snapshot. */
  | { readonly kind: 'connecting' }
  /** The attempt requested the stream at `startedAt` (milliseconds of `performance.now()`) and reads it. */
  | { readonly kind: 'streaming'; readonly startedAt: number }
  /** The server announced the end of the stream, so the end is not a failure. */
  | { readonly kind: 'ending'; readonly startedAt: number }
  /** Another tab has the stream or is about to open it. An attempt may determine the token or request a snapshot. */
  | { readonly kind: 'following' }
  /** The next attempt starts when the deadline passes. */
  | { readonly kind: 'waiting' }
  /** Final. */
  | { readonly kind: 'closed' };

/** Returns how long the stream lasts at `now`, or 0 if there is none; milliseconds. */
export function streamDuration(phase: Phase, now: number): number {
  return 'startedAt' in phase ? now - phase.startedAt : 0;
}

/** Returns the phase after the event `bye`. */
export function announceEnd(phase: Phase): Phase {
  return 'startedAt' in phase ? { ...phase, kind: 'ending' } : phase;
}

/**
 * Returns what to do when the deadline of the phase passes: start the next attempt, take over from a leader that does
 * not respond, or end the attempt because the server did not respond.
 */
export function onTimeout({ kind }: Phase): 'connect' | 'takeOver' | 'fail' {
  return kind === 'waiting' ? 'connect' : kind === 'following' ? 'takeOver' : 'fail';
}
