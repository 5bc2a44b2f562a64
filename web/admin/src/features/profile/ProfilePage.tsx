import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useMemo, useState } from 'react';
import { changePassword, signOut, signOutEverywhere } from '../../api/commands';
import { toApiError } from '../../api/problem';
import { personName } from '../../people/people';
import { type Density, setPreferences, type Theme, usePreferences } from '../../preferences/preferences';
import { roleLabel } from '../../session/roles';
import { useIdentity } from '../../session/session';
import { PageHead } from '../../shell/PageHead';
import { useShortcuts } from '../../shell/Shortcuts';
import { When } from '../../time/When';
import { browserZone, zoneNames } from '../../time/zones';
import { Button } from '../../ui/Button';
import { CheckboxLine, Field, FieldGroup, Segments, Select, TextInput } from '../../ui/Field';
import { ErrorNotice } from '../../ui/States';
import { showDone, showError } from '../../ui/toast';
import { forgetDrafts } from '../overrides/draft';
import styles from './profile.module.css';

export function ProfilePage() {
  return (
    <>
      <PageHead title="Profile" />
      <div className={styles.page}>
        <div className={styles.column}>
          <Account />
          <Appearance />
          <PasswordSection />
        </div>
      </div>
    </>
  );
}

/** Loads the sign-in page with a full navigation, so that no data of the user stays in memory. */
function leave(): void {
  forgetDrafts();
  location.assign('/sign-in');
}

function Account() {
  const identity = useIdentity();
  const isSession = identity.credential === 'session';
  const end = (action: () => Promise<void>) => action().then(leave, showError);
  return (
    <section className={styles.section} aria-label="Account">
      <dl className={styles.facts}>
        <dt>Name</dt>
        <dd>{personName(identity)}</dd>
        <dt>E-mail</dt>
        <dd>{identity.email ?? '–'}</dd>
        <dt>Role</dt>
        <dd>{roleLabel(identity.role)}</dd>
        {identity.expires_at ? (
          <>
            <dt>Session ends</dt>
            <dd>
              <When instant={identity.expires_at} />
            </dd>
          </>
        ) : null}
      </dl>
      {isSession ? (
        <div className={styles.buttons}>
          <Button onClick={() => void end(signOut)}>Sign out</Button>
          <Button variant="quiet" onClick={() => void end(signOutEverywhere)}>
            Sign out everywhere
          </Button>
        </div>
      ) : null}
    </section>
  );
}

const THEMES: readonly { value: Theme; label: string }[] = [
  { value: 'system', label: 'System' },
  { value: 'light', label: 'Light' },
  { value: 'dark', label: 'Dark' },
];
const DENSITIES: readonly { value: Density; label: string }[] = [
  { value: 'comfortable', label: 'Comfortable' },
  { value: 'compact', label: 'Compact' },
];

function Appearance() {
  const { theme, density, zone, letterShortcuts } = usePreferences();
  const { openKeys } = useShortcuts();
  const zones = useMemo(() => zoneNames([]), []);
  return (
    <section className={styles.section} aria-label="Appearance">
      <FieldGroup label="Theme">
        <Segments label="Theme" options={THEMES} value={theme} onChange={(next) => setPreferences({ theme: next })} />
      </FieldGroup>
      <FieldGroup label="Rows">
        <Segments
          label="Rows"
          options={DENSITIES}
          value={density}
          onChange={(next) => setPreferences({ density: next })}
        />
      </FieldGroup>
      <Field label="Time zone" hint="Times on all pages are shown in this zone.">
        {(control) => (
          <Select {...control} value={zone} onChange={(event) => setPreferences({ zone: event.target.value })}>
            <option value="browser">This computer: {browserZone()}</option>
            {zones.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </Select>
        )}
      </Field>
      <CheckboxLine
        label="Single letters are shortcuts"
        checked={letterShortcuts}
        onChange={(event) => setPreferences({ letterShortcuts: event.target.checked })}
      />
      <div>
        <Button onClick={openKeys}>Show keyboard shortcuts</Button>
      </div>
    </section>
  );
}

const MIN_PASSWORD = 12;

function PasswordSection() {
  const { credential } = useIdentity();
  const [current, setCurrent] = useState('');
  const [next, setNext] = useState('');
  const change = useMutation({
    mutationFn: () => changePassword(current, next),
    onSuccess: () => {
      setCurrent('');
      setNext('');
      showDone('Password changed. Other sessions are signed out.');
    },
  });
  if (credential !== 'session') return null;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (next.length >= MIN_PASSWORD && current !== '') change.mutate();
  };
  const failure = change.isError ? toApiError(change.error) : null;
  const isWrong = failure?.code === 'sign_in_failed';
  return (
    <section className={styles.section} aria-labelledby="password">
      <h2 id="password">Password</h2>
      <form className={styles.form} onSubmit={submit}>
        <Field label="Current password" error={isWrong ? 'This is not your current password.' : null}>
          {(control) => (
            <TextInput
              {...control}
              type="password"
              autoComplete="current-password"
              value={current}
              onChange={(event) => setCurrent(event.target.value)}
            />
          )}
        </Field>
        <Field label="New password" hint="At least 12 characters" error={failure?.fieldError('/new_password')}>
          {(control) => (
            <TextInput
              {...control}
              type="password"
              autoComplete="new-password"
              value={next}
              onChange={(event) => setNext(event.target.value)}
            />
          )}
        </Field>
        {failure && !isWrong ? <ErrorNotice error={failure} /> : null}
        <Button
          type="submit"
          busy={change.isPending}
          lockedReason={current === '' || next.length < MIN_PASSWORD ? 'Enter both passwords first.' : null}
        >
          Change password
        </Button>
      </form>
    </section>
  );
}
