import { useQuery, useQueryClient } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { FlagIcon } from 'lucide-react';
import { useEffect } from 'react';
import { ADDRESSES } from '../../addresses';
import { keys } from '../../api/keys';
import { meQuery } from '../../api/queries';
import { safeNext } from '../../session/nextAddress';
import { SignInForm } from '../../session/SignInForm';
import styles from '../../session/SignInForm.module.css';

const route = getRouteApi(ADDRESSES.signIn);

/** Sign-in page. Redirects if requests are already authenticated, for example by a proxy that adds a token. */
export function SignInPage() {
  const { next } = route.useSearch();
  const queryClient = useQueryClient();
  const identity = useQuery(meQuery());
  useEffect(() => {
    document.title = 'Sign in · Feature Flags';
  }, []);
  useEffect(() => {
    if (identity.data) location.replace(safeNext(next));
  }, [identity.data, next]);
  return (
    <main className={styles.page}>
      <div className={styles.column}>
        <span className={styles.mark}>
          <FlagIcon size={18} aria-hidden />
        </span>
        <h1 className={styles.title}>Sign in</h1>
        <p className="muted">to Feature Flags at {location.host}</p>
        <SignInForm onSignedIn={(signedIn) => queryClient.setQueryData(keys.me, signedIn)} />
      </div>
      <footer className={styles.footer}>
        <a href="/docs/">API documentation</a>
        <a href="/readyz">Status</a>
      </footer>
    </main>
  );
}
