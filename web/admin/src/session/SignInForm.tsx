import { ArrowBigUpIcon, EyeIcon, EyeOffIcon } from 'lucide-react';
import { type FormEvent, type KeyboardEvent, type ReactNode, useEffect, useState } from 'react';
import { signIn } from '../api/commands';
import { type ApiError, sentence, toApiError } from '../api/problem';
import type { Identity } from '../api/types';
import { Button } from '../ui/Button';
import { Field, TextInput } from '../ui/Field';
import { Notice } from '../ui/States';
import styles from './SignInForm.module.css';

interface SignInFormProps {
  readonly onSignedIn: (identity: Identity) => void;
  readonly notice?: ReactNode;
}

/** Form for e-mail and password. Shows a countdown while the server throttles attempts. */
export function SignInForm({ onSignedIn, notice }: SignInFormProps) {
  const [email, setEmail] = useState('');
  const [password, setPassword] = useState('');
  const [isVisible, setIsVisible] = useState(false);
  const [capsLock, setCapsLock] = useState(false);
  const [isBusy, setIsBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const secondsLeft = useCountdown(error?.status === 429 ? error : null);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (isBusy || secondsLeft > 0) return;
    setIsBusy(true);
    setError(null);
    try {
      onSignedIn(await signIn(email.trim(), password));
    } catch (failure) {
      setError(toApiError(failure));
    } finally {
      setIsBusy(false);
    }
  };
  const watchCapsLock = (event: KeyboardEvent) => setCapsLock(event.getModifierState('CapsLock'));

  return (
    <form className={styles.form} onSubmit={submit} noValidate>
      {notice}
      <Field label="E-mail">
        {(control) => (
          <TextInput
            {...control}
            boxClassName={styles.input}
            type="email"
            name="email"
            autoComplete="username"
            autoFocus
            required
            value={email}
            onChange={(event) => setEmail(event.target.value)}
          />
        )}
      </Field>
      <Field
        label="Password"
        hint={
          capsLock ? (
            <span className={styles.caps}>
              <ArrowBigUpIcon size={14} aria-hidden />
              Caps Lock is on
            </span>
          ) : null
        }
      >
        {(control) => (
          <TextInput
            {...control}
            boxClassName={styles.input}
            type={isVisible ? 'text' : 'password'}
            name="password"
            autoComplete="current-password"
            required
            value={password}
            onChange={(event) => setPassword(event.target.value)}
            onKeyUp={watchCapsLock}
            onKeyDown={watchCapsLock}
            end={
              <button
                type="button"
                className={styles.reveal}
                aria-pressed={isVisible}
                aria-label="Show password"
                onClick={() => setIsVisible(!isVisible)}
              >
                {isVisible ? <EyeOffIcon size={16} aria-hidden /> : <EyeIcon size={16} aria-hidden />}
              </button>
            }
          />
        )}
      </Field>
      {error ? (
        <Notice kind="error" role="alert">
          {signInMessage(error, secondsLeft)}
        </Notice>
      ) : null}
      <Button type="submit" variant="primary" className={styles.submit} busy={isBusy || secondsLeft > 0}>
        {secondsLeft > 0 ? `Try again in ${secondsLeft} s` : 'Sign in'}
      </Button>
    </form>
  );
}

function signInMessage(error: ApiError, secondsLeft: number): string {
  if (error.code === 'sign_in_failed') return 'E-mail or password is wrong.';
  if (error.status === 429)
    return secondsLeft > 0 ? `Too many attempts. You can try again in ${secondsLeft} s.` : 'You can try again now.';
  return sentence(error.message);
}

/** Returns the seconds until the request may be repeated. */
function useCountdown(error: ApiError | null): number {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    if (!error) {
      setSeconds(0);
      return;
    }
    const end = Date.now() + (error.retryAfter ?? 1) * 1000;
    const update = () => setSeconds(Math.max(0, Math.ceil((end - Date.now()) / 1000)));
    update();
    const timer = setInterval(update, 250);
    return () => clearInterval(timer);
  }, [error]);
  return seconds;
}
