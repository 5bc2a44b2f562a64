import { useState } from 'react';
import type { Identity } from '../api/types';
import { useZone } from '../preferences/preferences';
import { formatInstant } from '../time/format';
import { Dialog } from '../ui/Overlay';
import { Notice } from '../ui/States';
import { SignInForm } from './SignInForm';

/** Asks the user to sign in again after the session has ended. The page below keeps its contents. */
export function SignInDialog({ onSignedIn }: { readonly onSignedIn: (identity: Identity) => void }) {
  const zone = useZone();
  const [endedAt] = useState(() => Date.now());
  return (
    <Dialog isOpen onClose={() => {}} title="Sign in again" above isMandatory>
      <SignInForm
        onSignedIn={onSignedIn}
        notice={
          <Notice kind="info">
            Your session ended ({formatInstant(endedAt, endedAt, zone)}). What you entered is still on this page.
          </Notice>
        }
      />
    </Dialog>
  );
}
