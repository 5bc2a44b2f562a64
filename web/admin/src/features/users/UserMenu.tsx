import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { EllipsisIcon, KeyRoundIcon, PencilIcon, Trash2Icon, UserMinusIcon, UserPlusIcon } from 'lucide-react';
import { type FormEvent, useState } from 'react';
import { ADDRESSES } from '../../addresses';
import type { Tagged } from '../../api/client';
import { deleteUser, patchUser, setUserPassword } from '../../api/commands';
import { keys } from '../../api/keys';
import { toApiError } from '../../api/problem';
import type { User } from '../../api/types';
import { personName } from '../../people/people';
import { useLock } from '../../session/session';
import { Button } from '../../ui/Button';
import { CheckboxLine, Field, TextInput } from '../../ui/Field';
import { Menu, MenuItem, MenuSeparator } from '../../ui/Menu';
import { Dialog } from '../../ui/Overlay';
import { countOf } from '../../ui/Pager';
import { ErrorNotice, Notice } from '../../ui/States';
import { showDone, showError } from '../../ui/toast';
import { UserForm } from './UserForm';
import styles from './users.module.css';

type OpenForm = 'edit' | 'password' | 'delete' | null;

/** Menu with the actions on one user. */
export function UserMenu({ user }: { readonly user: Tagged<User> }) {
  const queryClient = useQueryClient();
  const lockedReason = useLock('changeUsers');
  const [form, setForm] = useState<OpenForm>(null);
  const { id, active, email } = user.resource;
  const passwordLock = email === null ? 'A password needs an e-mail address.' : null;
  const setActive = async (next: boolean, etag: string) => {
    try {
      const saved = await patchUser(id, { active: next }, etag);
      queryClient.setQueryData(keys.user(id), saved);
      void queryClient.invalidateQueries({ queryKey: keys.users });
      showDone(`${personName(user.resource)} is ${next ? 'active' : 'inactive'}`, () => setActive(!next, saved.etag));
    } catch (error) {
      showError(error);
    }
  };
  const close = () => setForm(null);
  return (
    <>
      <Menu
        trigger={
          <Button iconOnly variant="quiet" aria-label="Actions for this user">
            <EllipsisIcon size={16} aria-hidden />
          </Button>
        }
      >
        <MenuItem
          icon={<PencilIcon size={16} aria-hidden />}
          lockedReason={lockedReason}
          onClick={() => setForm('edit')}
        >
          Edit
        </MenuItem>
        <MenuItem
          icon={<KeyRoundIcon size={16} aria-hidden />}
          lockedReason={lockedReason ?? passwordLock}
          onClick={() => setForm('password')}
        >
          Set password
        </MenuItem>
        <MenuItem
          icon={active ? <UserMinusIcon size={16} aria-hidden /> : <UserPlusIcon size={16} aria-hidden />}
          lockedReason={lockedReason}
          onClick={() => void setActive(!active, user.etag)}
        >
          {active ? 'Deactivate' : 'Activate'}
        </MenuItem>
        <MenuSeparator />
        <MenuItem
          icon={<Trash2Icon size={16} aria-hidden />}
          isDangerous
          lockedReason={lockedReason}
          onClick={() => setForm('delete')}
        >
          Delete or erase
        </MenuItem>
      </Menu>
      {form === 'edit' ? <UserForm user={user} onClose={close} /> : null}
      {form === 'password' ? <PasswordDialog user={user.resource} onClose={close} /> : null}
      {form === 'delete' ? <DeleteDialog user={user.resource} onClose={close} /> : null}
    </>
  );
}

interface DialogProps {
  readonly user: User;
  readonly onClose: () => void;
}

const MIN_PASSWORD = 12;

function PasswordDialog({ user, onClose }: DialogProps) {
  const [password, setPassword] = useState('');
  const save = useMutation({
    mutationFn: () => setUserPassword(user.id, password),
    onSuccess: () => {
      onClose();
      showDone(`Password of ${personName(user)} set`);
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (password.length >= MIN_PASSWORD) save.mutate();
  };
  return (
    <Dialog
      isOpen
      onClose={onClose}
      title={`Set the password of ${personName(user)}`}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            type="submit"
            form="password-form"
            variant="primary"
            busy={save.isPending}
            lockedReason={password.length < MIN_PASSWORD ? 'A password has at least 12 characters.' : null}
          >
            Set password
          </Button>
        </>
      }
    >
      <form id="password-form" onSubmit={submit}>
        <Field label="New password" hint="At least 12 characters. The user is signed out everywhere.">
          {(control) => (
            <TextInput
              {...control}
              type="password"
              autoComplete="new-password"
              value={password}
              onChange={(event) => setPassword(event.target.value)}
            />
          )}
        </Field>
      </form>
      {save.isError ? <ErrorNotice error={save.error} /> : null}
    </Dialog>
  );
}

function DeleteDialog({ user, onClose }: DialogProps) {
  const queryClient = useQueryClient();
  const navigate = useNavigate();
  const [typed, setTyped] = useState('');
  const [erase, setErase] = useState(false);
  const confirmation = user.email ?? user.user_label;
  const remove = useMutation({
    mutationFn: () => deleteUser(user.id, erase),
    onSuccess: async () => {
      await navigate({ to: ADDRESSES.users });
      queryClient.removeQueries({ queryKey: keys.user(user.id) });
      void queryClient.invalidateQueries({ queryKey: keys.users });
      showDone(erase ? 'User erased' : 'User deleted');
    },
  });
  const verb = erase ? 'Erase user' : 'Delete user';
  const isLastAdmin = remove.isError && toApiError(remove.error).code === 'last_admin';
  return (
    <Dialog
      isOpen
      onClose={onClose}
      title={`Delete ${personName(user)}?`}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            variant="danger"
            busy={remove.isPending}
            lockedReason={typed === confirmation ? null : `Enter ${confirmation} first.`}
            onClick={() => remove.mutate()}
          >
            {verb}
          </Button>
        </>
      }
    >
      <Notice title="This cannot be undone">
        The user is signed out everywhere. {countOf(user.override_count, 'override')} and all API tokens of the user are
        deleted.
      </Notice>
      <div className={styles.form}>
        <CheckboxLine
          label="Also erase personal data from the audit log"
          checked={erase}
          onChange={(event) => setErase(event.target.checked)}
        />
        <Field label={`Enter ${confirmation} to confirm`}>
          {(control) => <TextInput {...control} value={typed} onChange={(event) => setTyped(event.target.value)} />}
        </Field>
      </div>
      {isLastAdmin ? (
        <Notice kind="error" role="alert" title="This is the last active admin">
          Flags cannot be managed without an admin. Make another user an admin first.
        </Notice>
      ) : null}
      {remove.isError && !isLastAdmin ? <ErrorNotice error={remove.error} /> : null}
    </Dialog>
  );
}
