import { useMutation, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import type { Tagged } from '../../api/client';
import { createUser, patchUser } from '../../api/commands';
import { keys } from '../../api/keys';
import { toApiError } from '../../api/problem';
import type { Json, PatchUser, Role, User } from '../../api/types';
import { personName } from '../../people/people';
import { ALL_ROLES, roleDescription, roleLabel } from '../../session/roles';
import { Button } from '../../ui/Button';
import { CheckboxLine, Field, Select, TextArea, TextInput } from '../../ui/Field';
import { Drawer } from '../../ui/Overlay';
import { ErrorNotice, Notice } from '../../ui/States';
import { showDone } from '../../ui/toast';
import { parseJson, sameValue } from '../../values/values';
import styles from './users.module.css';

interface UserFormProps {
  /** User to change. If absent, the form creates a user. */
  readonly user?: Tagged<User>;
  readonly onClose: () => void;
  readonly onSaved?: (user: User) => void;
}

interface Draft {
  readonly email: string;
  readonly externalId: string;
  readonly name: string;
  readonly role: Role;
  readonly active: boolean;
  readonly attributes: string;
  readonly password: string;
}

function draftOf(user: User | undefined): Draft {
  return {
    email: user?.email ?? '',
    externalId: user?.external_id ?? '',
    name: user?.display_name ?? '',
    role: user?.role ?? 'user',
    active: user?.active ?? true,
    attributes: JSON.stringify(user?.attributes ?? {}, null, 2),
    password: '',
  };
}

const FORM_ID = 'user-form';
const MAX_EXTERNAL_ID = 255;

/** Form that creates or changes a user. */
export function UserForm({ user, onClose, onSaved }: UserFormProps) {
  const queryClient = useQueryClient();
  const [draft, setDraft] = useState(() => draftOf(user?.resource));
  const [isChecked, setIsChecked] = useState(false);
  const set = (change: Partial<Draft>) => setDraft({ ...draft, ...change });
  const attributes = parseAttributes(draft.attributes);
  const hasEmail = draft.email.trim() !== '';
  const mayLackEmail = draft.externalId.trim() !== '' && draft.password === '';
  const problems = problemsOf(draft, user?.resource);
  const shown = isChecked ? problems : {};
  const hasExternalId = Boolean(user?.resource.external_id);

  const save = useMutation({
    mutationFn: async () => {
      if (attributes.kind === 'error') throw new Error(attributes.message);
      if (user) return patchUser(user.resource.id, changesOf(user.resource, draft, attributes.value), user.etag);
      return createUser({
        email: draft.email.trim() || null,
        external_id: draft.externalId.trim() || null,
        display_name: draft.name.trim() || null,
        role: draft.role,
        active: draft.active,
        attributes: attributes.value,
        ...(draft.password && { password: draft.password }),
      });
    },
    onSuccess: (saved) => {
      queryClient.setQueryData(keys.user(saved.resource.id), saved);
      void queryClient.invalidateQueries({ queryKey: keys.users });
      onClose();
      showDone(`${personName(saved.resource)} ${user ? 'changed' : 'created'}`);
      onSaved?.(saved.resource);
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setIsChecked(true);
    if (Object.keys(problems).length === 0 && attributes.kind === 'value') save.mutate();
  };
  const failure = save.isError ? toApiError(save.error) : null;
  const isConflict = failure?.status === 412;
  return (
    <Drawer
      isOpen
      onClose={onClose}
      size="medium"
      title={user ? `Edit ${personName(user.resource)}` : 'New user'}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={save.isPending}>
            {user ? 'Save' : 'Create user'}
          </Button>
        </>
      }
    >
      <form id={FORM_ID} className={styles.form} onSubmit={submit} noValidate>
        <Field
          label="E-mail"
          aside={mayLackEmail ? 'Optional' : null}
          error={shown.email ?? failure?.fieldError('/email')}
        >
          {(control) => (
            <TextInput
              {...control}
              type="email"
              value={draft.email}
              onChange={(event) => set({ email: event.target.value })}
            />
          )}
        </Field>
        {hasExternalId ? null : (
          <Field
            label="External ID"
            aside={hasEmail ? 'Optional' : null}
            hint="Id of the user in another system. It cannot be changed later. A user needs an e-mail address or an external id."
            error={shown.externalId ?? failure?.fieldError('/external_id')}
          >
            {(control) => (
              <TextInput
                {...control}
                maxLength={MAX_EXTERNAL_ID}
                value={draft.externalId}
                onChange={(event) => set({ externalId: event.target.value })}
              />
            )}
          </Field>
        )}
        <Field label="Name" aside="Optional" error={failure?.fieldError('/display_name')}>
          {(control) => (
            <TextInput {...control} value={draft.name} onChange={(event) => set({ name: event.target.value })} />
          )}
        </Field>
        <Field label="Role" hint={roleDescription(draft.role)}>
          {(control) => (
            <Select {...control} value={draft.role} onChange={(event) => set({ role: event.target.value as Role })}>
              {ALL_ROLES.map((role) => (
                <option key={role} value={role}>
                  {roleLabel(role)}
                </option>
              ))}
            </Select>
          )}
        </Field>
        {user ? null : (
          <Field
            label="Password"
            aside="Optional"
            hint="At least 12 characters. Without a password the user cannot sign in here. A password needs an e-mail address."
            error={failure?.fieldError('/password')}
          >
            {(control) => (
              <TextInput
                {...control}
                type="password"
                autoComplete="new-password"
                value={draft.password}
                onChange={(event) => set({ password: event.target.value })}
              />
            )}
          </Field>
        )}
        <Field
          label="Attributes"
          hint="JSON object. Targeting rules read these attributes."
          error={(attributes.kind === 'error' ? attributes.message : null) ?? failure?.fieldError('/attributes')}
        >
          {(control) => (
            <TextArea
              {...control}
              className={styles.attributes}
              spellCheck={false}
              value={draft.attributes}
              onChange={(event) => set({ attributes: event.target.value })}
            />
          )}
        </Field>
        <CheckboxLine
          label="Active"
          checked={draft.active}
          onChange={(event) => set({ active: event.target.checked })}
        />
      </form>
      {isConflict ? (
        <Notice role="alert" title="The user was changed meanwhile">
          Close this form, check the current state, and make your change again.
        </Notice>
      ) : null}
      {failure && !isConflict ? (
        failure.code === 'last_admin' ? (
          <Notice kind="error" role="alert" title="This is the last active admin">
            Flags cannot be managed without an admin. Make another user an admin first.
          </Notice>
        ) : (
          <ErrorNotice error={failure} title="The user was not saved" />
        )
      ) : null}
    </Drawer>
  );
}

/** Why the form cannot be saved, by field. */
interface Problems {
  readonly email?: string;
  readonly externalId?: string;
}

function problemsOf(draft: Draft, user: User | undefined): Problems {
  const email = draft.email.trim();
  const externalId = draft.externalId.trim();
  const emailProblem = problemOfEmail(email, externalId, draft.password);
  return {
    ...(emailProblem !== null && { email: emailProblem }),
    ...(!user?.external_id && externalId.includes('@') && { externalId: 'An external id must not contain @.' }),
  };
}

function problemOfEmail(email: string, externalId: string, password: string): string | null {
  if (email.includes('@')) return null;
  if (email !== '') return 'Enter an e-mail address.';
  if (password !== '') return 'A password needs an e-mail address.';
  return externalId === '' ? 'Enter an e-mail address or an external id.' : null;
}

type Attributes =
  | { readonly kind: 'value'; readonly value: { [name: string]: Json } }
  | { readonly kind: 'error'; readonly message: string };

function parseAttributes(text: string): Attributes {
  const parsed = parseJson(text);
  if (parsed.kind === 'error') return parsed;
  const { value } = parsed;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return { kind: 'error', message: 'Attributes must be a JSON object, such as {"plan": "pro"}.' };
  }
  return { kind: 'value', value: { ...(value as { [name: string]: Json }) } };
}

/** Returns only the fields that differ from `user`. */
function changesOf(user: User, draft: Draft, attributes: { [name: string]: Json }): PatchUser {
  const name = draft.name.trim() || null;
  const email = draft.email.trim() || null;
  const externalId = draft.externalId.trim() || null;
  return {
    ...(email !== user.email && { email }),
    ...(user.external_id === null && externalId !== null && { external_id: externalId }),
    ...(name !== user.display_name && { display_name: name }),
    ...(draft.role !== user.role && { role: draft.role }),
    ...(draft.active !== user.active && { active: draft.active }),
    ...(!sameValue(attributes, user.attributes) && { attributes }),
  };
}
