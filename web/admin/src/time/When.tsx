import { useZone } from '../preferences/preferences';
import { useServerTime } from './clock';
import { formatDate, formatFull, formatInstant, formatRelative, formatUtc } from './format';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** Renders often enough for the relative text of an instant. */
function useNowFor(time: number): number {
  const now = useServerTime(MINUTE);
  const exact = useServerTime(Math.abs(time - now) < 2 * MINUTE ? 1000 : MINUTE);
  return exact;
}

/** `Fri 12 Feb, 12:00 in 3 d`; UTC in the title. */
export function When({
  instant,
  withRelative = true,
  className,
  absoluteClassName,
}: {
  readonly instant: string;
  readonly withRelative?: boolean;
  readonly className?: string | undefined;
  readonly absoluteClassName?: string | undefined;
}) {
  const zone = useZone();
  const time = Date.parse(instant);
  const now = useNowFor(time);
  return (
    <time dateTime={instant} title={`${formatFull(time, zone)} · ${formatUtc(time, zone)}`} className={className}>
      <span className={absoluteClassName}>{formatInstant(time, now, zone)}</span>
      {withRelative ? <span className="muted"> {formatRelative(time, now)}</span> : null}
    </time>
  );
}

/** `2 h ago`, or the date if it is more than a week ago. */
export function Ago({ instant }: { readonly instant: string }) {
  const zone = useZone();
  const time = Date.parse(instant);
  const now = useNowFor(time);
  const isRecent = Math.abs(now - time) < 7 * 24 * HOUR;
  return (
    <time dateTime={instant} title={`${formatFull(time, zone)} · ${formatUtc(time, zone)}`}>
      {isRecent ? formatRelative(time, now) : formatInstant(time, now, zone)}
    </time>
  );
}

/** Function that formats instants in sentences, in the reader's zone. */
export function useFormatTime(): (instant: string) => string {
  const zone = useZone();
  const now = useServerTime(MINUTE);
  return (instant) => formatInstant(Date.parse(instant), now, zone);
}

/** `4 Mar 2025`. */
export function DateOnly({ instant }: { readonly instant: string }) {
  const zone = useZone();
  const time = Date.parse(instant);
  return (
    <time dateTime={instant} title={`${formatFull(time, zone)} · ${formatUtc(time, zone)}`}>
      {formatDate(time, zone)}
    </time>
  );
}
