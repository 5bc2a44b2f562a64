import { useZone } from '../preferences/preferences';
import { useServerTime } from './clock';
import { formatDate, formatFull, formatInstant, formatRelative, formatUtc } from './format';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** Returns the server time. Re-renders each second near `time`, otherwise each minute, for relative texts. */
function useNowFor(time: number): number {
  const now = useServerTime(MINUTE);
  const exact = useServerTime(Math.abs(time - now) < 2 * MINUTE ? 1000 : MINUTE);
  return exact;
}

/** Shows an instant as `Fri 12 Feb, 12:00 in 3 d`. The tooltip contains the time in UTC. */
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

/** Shows an instant as `2 h ago`, or as date and time if it is more than a week away. */
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

/** Returns a function that formats an instant for sentences, in the preferred time zone. */
export function useFormatTime(): (instant: string) => string {
  const zone = useZone();
  const now = useServerTime(MINUTE);
  return (instant) => formatInstant(Date.parse(instant), now, zone);
}

/** Shows the date of an instant, such as `4 Mar 2025`. */
export function DateOnly({ instant }: { readonly instant: string }) {
  const zone = useZone();
  const time = Date.parse(instant);
  return (
    <time dateTime={instant} title={`${formatFull(time, zone)} · ${formatUtc(time, zone)}`}>
      {formatDate(time, zone)}
    </time>
  );
}
