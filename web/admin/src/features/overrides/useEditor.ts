/** State of the override editor: the loaded override, the draft, and the outcome of saving. */

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useCallback, useEffect, useRef, useState } from 'react';
import type { Tagged } from '../../api/client';
import { createOverride, deleteOverride, patchOverride, replaceOverride } from '../../api/commands';
import { keys } from '../../api/keys';
import { type ApiError, toApiError } from '../../api/problem';
import { overrideQuery, readableFlagQuery, userFlagsQuery, userQuery } from '../../api/queries';
import type { Flag, UserOverride } from '../../api/types';
import { useZone } from '../../preferences/preferences';
import { useServerTime } from '../../time/clock';
import { type Expiry, expiryOf, rememberPreset } from '../../time/expiry';
import { showDone } from '../../ui/toast';
import {
  changedFields,
  collisions,
  type Draft,
  draftOf,
  emptyDraft,
  type FieldName,
  type Fields,
  fieldsOf,
  loadDraft,
  type ResolvedValue,
  resolveValue,
  sameField,
  storeDraft,
} from './draft';
import { type EditorTarget, useEditorLink } from './editorAddress';
import { recreateOverride } from './undo';

const MAX_ATTEMPTS = 4;

/** Change by another person that prevents saving. */
export type Conflict =
  /** Another person created an override of the same flag for the same user. */
  | { readonly kind: 'exists'; readonly theirs: Tagged<UserOverride> }
  /** Another person changed the same fields. */
  | { readonly kind: 'changed'; readonly theirs: Tagged<UserOverride>; readonly fields: readonly FieldName[] }
  /** The override was deleted, or it expired and was removed. */
  | { readonly kind: 'gone' };

export interface Editor {
  readonly target: EditorTarget;
  readonly isLoading: boolean;
  readonly loadError: unknown;
  readonly userData: ReturnType<typeof useUser>;
  readonly flag: Flag | undefined;
  readonly base: Tagged<UserOverride> | null;
  readonly draft: Draft;
  readonly isRestored: boolean;
  readonly isDirty: boolean;
  readonly resolved: ResolvedValue;
  readonly expiry: Expiry;
  /** Fields of the form. `null` if the value or the expiry is not valid. */
  readonly fields: Fields | null;
  readonly openedAt: number;
  readonly problems: Problems;
  readonly showProblems: boolean;
  readonly conflict: Conflict | null;
  /** Version that another person saved. Its changes to other fields were merged into the form. */
  readonly mergedFrom: UserOverride | null;
  readonly saving: 'idle' | 'saving' | 'retrying';
  readonly error: ApiError | null;
  readonly change: (change: Partial<Draft>) => void;
  readonly save: () => Promise<void>;
  readonly discard: () => void;
  readonly resolveConflict: (choice: ConflictChoice) => void;
}

export type ConflictChoice =
  | 'replace'
  | 'edit'
  | 'keepTheirs'
  | 'recreate'
  | { readonly field: FieldName; readonly side: 'mine' | 'theirs' };

/** Why the form cannot be saved, by field. */
export interface Problems {
  readonly user?: string;
  readonly flag?: string;
  readonly value?: string;
  readonly expiry?: string;
  readonly reason?: string;
}

function useUser(userId: string | undefined) {
  return useQuery({ ...userQuery(userId ?? ''), enabled: userId !== undefined });
}

export function useEditor(target: EditorTarget): Editor {
  const zone = useZone();
  const minute = useServerTime(60_000);
  const queryClient = useQueryClient();
  const { openExisting, close } = useEditorLink();
  const { user: userId, flag: flagName } = target;
  const userData = useUser(userId);
  const flagData = useQuery({ ...readableFlagQuery(flagName ?? ''), enabled: flagName !== undefined });
  const values = useQuery({ ...userFlagsQuery(userId ?? ''), enabled: userId !== undefined });
  const isExisting = target.kind === 'existing';
  const loaded = useQuery({ ...overrideQuery(userId ?? '', flagName ?? ''), enabled: isExisting, retry: false });
  const flag = flagData.data?.resource;

  const [stored] = useState(() => loadDraft(userId, flagName));
  const [draft, setDraft] = useState<Draft>(() => stored ?? emptyDraft(zone));
  const [isTouched, setIsTouched] = useState(stored !== null);
  const [base, setBase] = useState<Tagged<UserOverride> | null>(null);
  const [openedAt] = useState(minute);
  const [showProblems, setShowProblems] = useState(false);
  const [conflict, setConflict] = useState<Conflict | null>(null);
  const [mergedFrom, setMergedFrom] = useState<UserOverride | null>(null);
  const [saving, setSaving] = useState<Editor['saving']>('idle');
  const [error, setError] = useState<ApiError | null>(null);
  const idempotencyKey = useRef('');

  // A period such as 7 days starts when the form is saved. The preview uses the current minute instead.
  const kept = base?.resource.expires_at ?? null;
  const expiry = expiryOf(draft.expiry, minute, kept);
  const resolved: ResolvedValue = flag ? resolveValue(draft.value, flag) : { kind: 'none' };
  const fields = fieldsIn(draft, resolved, expiry);

  // If the chosen user already has an override of the chosen flag, the editor opens that override.
  const existing = flagName === undefined ? undefined : values.data?.flags[flagName]?.override;
  useEffect(() => {
    if (target.kind === 'new' && target.user && target.flag && existing && existing.status !== 'expired') {
      openExisting(target.user, target.flag);
    }
  }, [target, existing, openExisting]);

  const rebase = useCallback(
    (theirs: Tagged<UserOverride>, previous: Tagged<UserOverride>, mine: Fields | null, currentFlag: Flag) => {
      setBase(theirs);
      const theirDraft = draftOf(theirs.resource, currentFlag, zone);
      if (!mine) {
        setDraft(theirDraft);
        return;
      }
      const before = fieldsOf(previous.resource);
      setDraft((current) => mergeDrafts(current, theirDraft, before, mine));
      const collided = collisions(before, fieldsOf(theirs.resource), mine);
      if (collided.length > 0) setConflict({ kind: 'changed', theirs, fields: collided });
      else setMergedFrom(theirs.resource);
    },
    [zone],
  );

  // The first response fills the form. Later responses contain changes by other people.
  const fresh = loaded.data;
  useEffect(() => {
    if (!fresh || !flag || saving !== 'idle') return;
    if (!base) {
      setBase(fresh);
      if (!isTouched) setDraft(draftOf(fresh.resource, flag, zone));
    } else if (fresh.etag !== base.etag && fresh.resource.revision > base.resource.revision) {
      rebase(fresh, base, isTouched ? fields : null, flag);
    }
  }, [fresh, flag, base, isTouched, saving, zone, fields, rebase]);

  const isGone = isExisting && base !== null && loaded.isError && toApiError(loaded.error).status === 404;
  useEffect(() => {
    if (isGone && saving === 'idle') setConflict({ kind: 'gone' });
  }, [isGone, saving]);

  const problems = problemsOf({ target, draft, resolved, expiry, error });
  const isDirty =
    isTouched && (base && fields ? Object.keys(changedFields(fieldsOf(base.resource), fields)).length > 0 : true);

  const change = (next: Partial<Draft>) => {
    const changed = { ...draft, ...next };
    setDraft(changed);
    setIsTouched(true);
    setError(null);
    storeDraft(userId, flagName, changed);
  };
  const discard = () => {
    storeDraft(userId, flagName, null);
    storeDraft(userId, undefined, null);
    storeDraft(undefined, flagName, null);
    storeDraft(undefined, undefined, null);
    setIsTouched(false);
  };

  const finish = (saved: Tagged<UserOverride>, undo: () => Promise<unknown>) => {
    const { user_id, flag_name } = saved.resource;
    queryClient.setQueryData(keys.override(user_id, flag_name), saved);
    discard();
    rememberPreset(draft.expiry.preset);
    const refresh = () => {
      for (const queryKey of [keys.overrides, keys.users, keys.flags, keys.allUserFlags, keys.allExplanations]) {
        void queryClient.invalidateQueries({ queryKey });
      }
    };
    refresh();
    close();
    showDone(`${flag_name} set for ${saved.resource.user_label}`, async () => {
      await undo();
      refresh();
    });
  };

  const send = async (toSave: Fields): Promise<void> => {
    if (!userId || !flagName) return;
    if (!base) {
      if (idempotencyKey.current === '') idempotencyKey.current = crypto.randomUUID();
      const request = { flag_name: flagName, ...toSave };
      const created = await createOverride(userId, request, idempotencyKey.current);
      finish(created, () => deleteOverride(userId, flagName));
      return;
    }
    const before = base.resource;
    const patch = changedFields(fieldsOf(before), toSave);
    const saved = await patchOverride(userId, flagName, patch, base.etag);
    finish(saved, () => patchOverride(userId, flagName, inverse(before, patch), saved.etag));
  };

  const handleFailure = async (failure: ApiError, mine: Fields): Promise<void> => {
    if (!userId || !flagName || !flag) return;
    // The admin may change the form before the next attempt, and a changed request needs a new idempotency key.
    if (!failure.isTemporary) idempotencyKey.current = '';
    if (failure.status === 409 && failure.code === 'override_exists') {
      const theirs = await queryClient.fetchQuery({ ...overrideQuery(userId, flagName), staleTime: 0 });
      setConflict({ kind: 'exists', theirs });
    } else if (failure.status === 412 && base) {
      const theirs = await queryClient.fetchQuery({ ...overrideQuery(userId, flagName), staleTime: 0 });
      rebase(theirs, base, mine, flag);
    } else if (failure.status === 404 && base) setConflict({ kind: 'gone' });
    else setError(failure);
  };

  const save = async () => {
    setShowProblems(true);
    // A period such as 7 days starts at the time of saving.
    const now = Math.max(minute, openedAt);
    const mine = fieldsIn(draft, resolved, expiryOf(draft.expiry, now, kept));
    if (Object.keys(problems).length > 0 || !mine || conflict || saving !== 'idle') return;
    setError(null);
    setSaving('saving');
    try {
      for (let attempt = 1; ; attempt += 1) {
        try {
          await send(mine);
          break;
        } catch (thrown) {
          const failure = toApiError(thrown);
          if (!failure.isTemporary || attempt >= MAX_ATTEMPTS) {
            await handleFailure(failure, mine);
            break;
          }
          setSaving('retrying');
          await new Promise((resolve) => setTimeout(resolve, (failure.retryAfter ?? attempt) * 1000));
        }
      }
    } catch (thrown) {
      setError(toApiError(thrown));
    } finally {
      setSaving('idle');
    }
  };

  const replaceTheirs = async (theirs: Tagged<UserOverride>, mine: Fields) => {
    const { user_id, flag_name } = theirs.resource;
    setSaving('saving');
    try {
      const saved = await replaceOverride(user_id, flag_name, mine, theirs.etag);
      const before = theirs.resource;
      finish(saved, () => replaceOverride(user_id, flag_name, fieldsOf(before), saved.etag));
    } catch (thrown) {
      setError(toApiError(thrown));
    } finally {
      setSaving('idle');
    }
  };

  const resolveConflict = (choice: ConflictChoice) => {
    if (!conflict || !flag) return;
    setConflict(null);
    if (typeof choice === 'object') {
      if (conflict.kind !== 'changed') return;
      const rest = conflict.fields.filter((name) => name !== choice.field);
      if (choice.side === 'theirs') {
        const theirDraft = draftOf(conflict.theirs.resource, flag, zone);
        change(pick(theirDraft, choice.field));
      }
      if (rest.length > 0) setConflict({ ...conflict, fields: rest });
    } else if (choice === 'replace' && conflict.kind === 'exists' && fields)
      void replaceTheirs(conflict.theirs, fields);
    else if (choice === 'edit' && conflict.kind === 'exists') {
      storeDraft(userId, flagName, draft);
      setBase(conflict.theirs);
      openExisting(conflict.theirs.resource.user_id, conflict.theirs.resource.flag_name);
    } else if (choice === 'recreate' && base && fields && userId && flagName) {
      setSaving('saving');
      recreateOverride({ ...base.resource, ...fields })
        .then(() => {
          void queryClient.invalidateQueries({ queryKey: keys.overrides });
          discard();
          close();
          showDone(`${flagName} set again`);
        })
        .catch((thrown) => setError(toApiError(thrown)))
        .finally(() => setSaving('idle'));
    } else {
      discard();
      close();
    }
  };

  return {
    target,
    isLoading: isExisting && loaded.isPending,
    loadError: isExisting && !base ? (loaded.error ?? flagData.error) : (flagData.error ?? userData.error),
    userData,
    flag,
    base,
    draft,
    isRestored: stored !== null && isTouched,
    isDirty,
    resolved,
    expiry,
    fields,
    openedAt: minute,
    problems,
    showProblems,
    conflict,
    mergedFrom,
    saving,
    error,
    change,
    save,
    discard,
    resolveConflict,
  };
}

/** Returns the fields of the form, or `null` if the value or the expiry is not valid. */
function fieldsIn(draft: Draft, resolved: ResolvedValue, expiry: Expiry): Fields | null {
  if (resolved.kind !== 'value' || expiry.kind === 'invalid') return null;
  return {
    override_value: resolved.value,
    expires_at: expiry.kind === 'at' ? new Date(expiry.time).toISOString() : null,
    reason: draft.reason.trim() || null,
    enabled: draft.enabled,
  };
}

interface ProblemInput {
  readonly target: EditorTarget;
  readonly draft: Draft;
  readonly resolved: ResolvedValue;
  readonly expiry: Expiry;
  readonly error: ApiError | null;
}

function problemsOf({ target, draft, resolved, expiry }: ProblemInput): Problems {
  return {
    ...(!target.user && { user: 'Choose a user.' }),
    ...(!target.flag && { flag: 'Choose a flag.' }),
    ...(resolved.kind === 'none' && { value: 'Choose a value.' }),
    ...(resolved.kind === 'error' && { value: resolved.message }),
    ...(expiry.kind === 'invalid' && { expiry: expiry.message }),
    ...(draft.expiry.preset === 'never' &&
      draft.reason.trim() === '' && { reason: 'Enter why the override never expires.' }),
  };
}

/** Returns the part of a draft that corresponds to a field. */
function pick(draft: Draft, field: FieldName): Partial<Draft> {
  switch (field) {
    case 'override_value':
      return { value: draft.value };
    case 'expires_at':
      return { expiry: draft.expiry };
    case 'reason':
      return { reason: draft.reason };
    case 'enabled':
      return { enabled: draft.enabled };
  }
}

/** Returns `mine` with the values of `theirs` in all fields that the form does not change. */
function mergeDrafts(mine: Draft, theirs: Draft, before: Fields, fields: Fields): Draft {
  let merged = mine;
  for (const name of ['override_value', 'expires_at', 'reason', 'enabled'] as const) {
    if (sameField(name, before, fields)) merged = { ...merged, ...pick(theirs, name) };
  }
  return merged;
}

/** Returns the patch that restores the previous values of the fields in `patch`. */
function inverse(before: UserOverride, patch: object): Partial<Fields> {
  const fields = fieldsOf(before);
  return Object.fromEntries(Object.keys(patch).map((name) => [name, fields[name as FieldName]]));
}
