import { ClockIcon, GlobeIcon } from 'lucide-react';
import { useMemo } from 'react';
import { Choices, FieldGroup, Segments, Select, TextInput } from '../ui/Field';
import { clockSkew, useServerTime } from './clock';
import { type ExpiryChoice, type ExpiryPreset, expiryOf, todayAt18 } from './expiry';
import { formatFull, formatRelative, formatUtc } from './format';
import styles from './time.module.css';
import { browserZone, formatOffset, readLocalTime, toLocalTime, zoneNames } from './zones';

/** Clock difference above which the form shows a warning; milliseconds. */
const REPORTED_SKEW = 60_000;

interface ExpiryFieldProps {
  readonly choice: ExpiryChoice;
  readonly onChange: (choice: ExpiryChoice) => void;
  /** Server time at which a period such as 7 days starts; milliseconds since 1970. */
  readonly from: number;
  /** Current expiry of the override; `null` if it never expires. If present, the field offers to keep it. */
  readonly kept?: string | null;
  readonly error: string | null;
}

/** Input for an expiry: a period, a date and time, or never. Shows the time zone, UTC and the remaining time. */
export function ExpiryField({ choice, onChange, from, kept, error }: ExpiryFieldProps) {
  const now = useServerTime();
  const zones = useMemo(() => zoneNames([choice.zone, browserZone()]), [choice.zone]);
  const expiry = expiryOf(choice, from, kept ?? null);
  const options: { value: ExpiryPreset; label: string }[] = [
    ...(kept === undefined ? [] : [{ value: 'keep', label: 'Unchanged' } as const]),
    { value: '1h', label: '1 h' },
    { value: '4h', label: '4 h' },
    ...(todayAt18(from, choice.zone) === null ? [] : [{ value: 'today', label: 'Today 18:00' } as const]),
    { value: '24h', label: '24 h' },
    { value: '7d', label: '7 d' },
    { value: '30d', label: '30 d' },
    { value: 'pick', label: 'Pick' },
    { value: 'never', label: 'Never' },
  ];
  const select = (preset: ExpiryPreset) => {
    const start = expiry.kind === 'at' ? expiry.time : from + 7 * 86_400_000;
    const local = preset === 'pick' && choice.local === '' ? toLocalTime(start, choice.zone) : choice.local;
    onChange({ ...choice, preset, local });
  };
  return (
    <FieldGroup label="Expires" error={error}>
      <Segments label="Expires" options={options} value={choice.preset} onChange={select} />
      {choice.preset === 'pick' ? (
        <>
          <div className={styles.when}>
            <TextInput
              type="datetime-local"
              aria-label="Date and time"
              value={choice.local}
              onChange={(event) => onChange({ ...choice, local: event.target.value, reading: null })}
            />
            <Select
              icon={<GlobeIcon size={16} aria-hidden />}
              aria-label="Time zone"
              value={choice.zone}
              onChange={(event) => onChange({ ...choice, zone: event.target.value, reading: null })}
            >
              {zones.map((zone) => (
                <option key={zone}>{zone}</option>
              ))}
            </Select>
          </div>
          <ReadingChoice choice={choice} onChange={onChange} />
        </>
      ) : null}
      <p className={styles.instant} aria-live="polite">
        <ClockIcon size={14} aria-hidden />
        {expiry.kind === 'at' ? (
          <span>
            <strong>{formatFull(expiry.time, choice.zone)}</strong> {choice.zone} ·{' '}
            {formatUtc(expiry.time, choice.zone)} · {formatRelative(expiry.time, now)}
          </span>
        ) : null}
        {expiry.kind === 'never' ? <span>Until it is deleted. A reason is required.</span> : null}
        {expiry.kind === 'invalid' ? <span>{expiry.message}</span> : null}
      </p>
      {clockSkew() > REPORTED_SKEW ? (
        <p className={styles.instant}>
          The clock of this computer differs from the server&apos;s by{' '}
          {formatRelative(clockSkew(), 0).replace('in ', '')}.
        </p>
      ) : null}
    </FieldGroup>
  );
}

/** Offers both possible instants if a clock change repeats or skips the local time. */
function ReadingChoice({ choice, onChange }: Pick<ExpiryFieldProps, 'choice' | 'onChange'>) {
  const readings = readLocalTime(choice.local, choice.zone);
  if (!readings || readings.kind === 'exact') return null;
  const explanation = readings.kind === 'doubled' ? 'exists twice' : 'does not exist';
  return (
    <>
      <p className={styles.instant}>
        {choice.local.slice(11)} {explanation} on this day, because the clocks change. Which time do you mean?
      </p>
      <Choices
        label="Which time"
        options={readings.instants.map((time, index) => ({
          value: String(index),
          label: `${formatFull(time, choice.zone)} (${formatOffset(time, choice.zone)})`,
        }))}
        value={choice.reading === null ? null : String(choice.reading)}
        onChange={(value) => onChange({ ...choice, reading: value === '1' ? 1 : 0 })}
      />
    </>
  );
}
