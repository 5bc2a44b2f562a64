import { IdCardLanyardIcon, LinkIcon } from 'lucide-react';
import { type KeyboardEvent, useEffect, useState } from 'react';
import { toApiError, UnreadableFlagError } from '../../api/problem';
import type { Flag, User } from '../../api/types';
import { personShortName } from '../../people/people';
import { useLock } from '../../session/session';
import { MODIFIER } from '../../shell/PageHead';
import { ExpiryField } from '../../time/ExpiryField';
import { formatInstant } from '../../time/format';
import { Button, Key } from '../../ui/Button';
import { CheckboxLine, Field, TextArea } from '../../ui/Field';
import { Dialog, Drawer } from '../../ui/Overlay';
import { ErrorNotice, ErrorState, Notice, SkeletonRows } from '../../ui/States';
import { showDone, showError } from '../../ui/toast';
import { LayerChip, Value, WarningChip } from '../../values/parts';
import { formatValue } from '../../values/values';
import { ConflictNotice, MergedNotice } from './ConflictNotice';
import { MAX_REASON } from './draft';
import styles from './editor.module.css';
import { type EditorTarget, shareableAddress, useEditorLink, useEditorTarget } from './editorAddress';
import { FlagPicker } from './FlagPicker';
import { findingsOf, withoutOverride } from './outlook';
import { type Outlook, Preview, useOutlook } from './Preview';
import { UserPicker } from './UserPicker';
import { type Editor, useEditor } from './useEditor';
import { ValueField } from './ValueField';

/** Length of the reason from which the form shows a character count. */
const COUNTED_REASON = 400;

/** Override editor in a drawer over the current page. The URL decides whether it is open. */
export default function OverrideDrawer() {
  const target = useEditorTarget();
  const [shown, setShown] = useState(target);
  useEffect(() => {
    if (target) setShown(target);
  }, [target]);
  const current = target ?? shown;
  if (!current) return null;
  // The key keeps the draft of a new override while user and flag are chosen. Another override resets the form.
  const key = current.kind === 'new' ? 'new' : `${current.user}/${current.flag}`;
  return target ? <EditorDrawer key={key} target={target} /> : null;
}

function EditorDrawer({ target }: { readonly target: EditorTarget }) {
  const editor = useEditor(target);
  const { openNew, close } = useEditorLink();
  const lockedReason = useLock('changeOverrides');
  const [isAsking, setIsAsking] = useState(false);
  const outlook = useOutlook(target.user, target.flag, editor.expiry);
  const user = editor.userData.data?.resource;
  const requestClose = () => {
    if (editor.isDirty && hasContent(editor)) setIsAsking(true);
    else close();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== 'Enter' || !(event.metaKey || event.ctrlKey)) return;
    event.preventDefault();
    if (!lockedReason) void editor.save();
  };
  useSaveWarning(editor.isDirty && hasContent(editor));
  return (
    <Drawer
      isOpen
      onClose={requestClose}
      size="wide"
      bare
      icon={<IdCardLanyardIcon size={16} aria-hidden />}
      title={target.kind === 'new' ? 'Override a flag for one user' : 'Edit override'}
      actions={
        <Button
          variant="quiet"
          iconOnly
          aria-label="Copy link"
          onClick={() =>
            navigator.clipboard.writeText(shareableAddress(target)).then(() => showDone('Link copied'), showError)
          }
        >
          <LinkIcon size={16} aria-hidden />
        </Button>
      }
    >
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the shortcut for saving works in every field of the form */}
      <div className={styles.columns} onKeyDown={onKeyDown}>
        <form
          className={styles.form}
          noValidate
          onSubmit={(event) => {
            event.preventDefault();
            void editor.save();
          }}
        >
          {editor.loadError && !editor.conflict ? (
            <ErrorState error={editor.loadError} title={loadErrorTitle(editor.loadError)} />
          ) : null}
          {editor.isLoading ? <SkeletonRows /> : null}
          {!editor.loadError && !editor.isLoading ? (
            <FormFields editor={editor} outlook={outlook} onTarget={openNew} />
          ) : null}
        </form>
        <Preview
          isUnavailable={editor.loadError !== null}
          user={user}
          flag={editor.flag}
          outlook={outlook}
          value={editor.resolved.kind === 'value' ? { value: editor.resolved.value } : undefined}
          enabled={editor.draft.enabled}
          expiry={editor.expiry}
          zone={editor.draft.expiry.zone}
        />
      </div>
      <Footer editor={editor} outlook={outlook} user={user} lockedReason={lockedReason} onCancel={requestClose} />
      <Dialog
        isOpen={isAsking}
        onClose={() => setIsAsking(false)}
        above
        title="Close without saving?"
        footer={
          <>
            <Button
              variant="danger"
              onClick={() => {
                editor.discard();
                close();
              }}
            >
              Discard
            </Button>
            <Button onClick={close}>Keep as draft</Button>
            <Button variant="primary" onClick={() => setIsAsking(false)}>
              Continue editing
            </Button>
          </>
        }
      >
        <p>A draft stays in this browser tab until you sign out.</p>
      </Dialog>
    </Drawer>
  );
}

function loadErrorTitle(error: unknown): string {
  if (error instanceof UnreadableFlagError) return 'The flag cannot be read';
  return toApiError(error).status === 404 ? 'This override does not exist' : 'This could not be loaded';
}

/** Whether the form contains more than a user and a flag. */
function hasContent({ draft, base }: Editor): boolean {
  return base !== null || draft.value.choice !== null || draft.reason !== '';
}

/** Makes the browser ask for confirmation before it closes the tab. */
function useSaveWarning(isDirty: boolean): void {
  useEffect(() => {
    if (!isDirty) return;
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener('beforeunload', warn);
    return () => removeEventListener('beforeunload', warn);
  }, [isDirty]);
}

interface FormFieldsProps {
  readonly editor: Editor;
  readonly outlook: Outlook;
  readonly onTarget: (target: { readonly user?: string; readonly flag?: string }) => void;
}

function FormFields({ editor, outlook, onTarget }: FormFieldsProps) {
  const { target, draft, flag, change, problems, showProblems, base } = editor;
  const user = editor.userData.data?.resource;
  const isExisting = target.kind === 'existing';
  const shown = showProblems ? problems : {};
  const serverError = (pointer: string) => editor.error?.fieldError(pointer) ?? null;
  const choose = (userId: string | undefined, flagName: string | undefined) =>
    onTarget({ ...(userId && { user: userId }), ...(flagName && { flag: flagName }) });
  return (
    <>
      {editor.isRestored ? (
        <Notice kind="info" title="Your draft was restored">
          It was not saved before.
        </Notice>
      ) : null}
      <UserPicker user={user} isFixed={isExisting} onChoose={(chosen) => choose(chosen?.id, target.flag)} />
      {shown.user ? <Notice kind="error">{shown.user}</Notice> : null}
      <FlagPicker
        userId={target.user}
        flag={target.flag}
        type={flag?.flag_type}
        result={undefined}
        isFixed={isExisting}
        onChoose={(chosen) => {
          change({ value: { choice: null, text: '' } });
          choose(target.user, chosen ?? undefined);
        }}
      />
      {shown.flag ? <Notice kind="error">{shown.flag}</Notice> : null}
      {flag?.archived_at ? (
        <Notice kind="error" title="The flag is archived">
          Archived flags have no value, not even through an override. Restore the flag first.
        </Notice>
      ) : null}
      {flag ? (
        <ValueField
          key={flag.name}
          flag={flag}
          draft={draft.value}
          resolved={editor.resolved}
          current={outlook.now?.resolution?.value}
          onChange={(value) => change({ value })}
          error={shown.value ?? serverError('/override_value')}
        />
      ) : null}
      <ExpiryField
        choice={draft.expiry}
        onChange={(expiry) => change({ expiry })}
        from={editor.openedAt}
        {...(base ? { kept: base.resource.expires_at } : {})}
        error={(shown.expiry && draft.expiry.preset !== 'pick' ? shown.expiry : null) ?? serverError('/expires_at')}
      />
      <Field
        label="Reason"
        aside={draft.expiry.preset === 'never' ? 'Required' : 'Optional'}
        hint={
          <>
            Stored in the audit log. Do not enter personal data.
            {draft.reason.length >= COUNTED_REASON ? ` ${draft.reason.length} of ${MAX_REASON} characters.` : ''}
          </>
        }
        error={shown.reason ?? serverError('/reason')}
      >
        {(control) => (
          <TextArea
            {...control}
            maxLength={MAX_REASON}
            value={draft.reason}
            onChange={(event) => change({ reason: event.target.value })}
          />
        )}
      </Field>
      {base ? (
        <CheckboxLine
          label="Enabled"
          checked={draft.enabled}
          onChange={(event) => change({ enabled: event.target.checked })}
        />
      ) : null}
      {editor.mergedFrom && !editor.conflict ? <MergedNotice override={editor.mergedFrom} /> : null}
      {editor.conflict && target.user && target.flag ? (
        <ConflictNotice
          conflict={editor.conflict}
          userId={target.user}
          flag={target.flag}
          mine={editor.fields}
          onChoose={editor.resolveConflict}
        />
      ) : null}
      {editor.error ? <ErrorNotice error={editor.error} title="The override was not saved" /> : null}
    </>
  );
}

interface FooterProps {
  readonly editor: Editor;
  readonly outlook: Outlook;
  readonly user: User | undefined;
  readonly lockedReason: string | null;
  readonly onCancel: () => void;
}

function Footer({ editor, outlook, user, lockedReason, onCancel }: FooterProps) {
  const warnings = warningCount(editor, outlook, user);
  return (
    <footer className={styles.footer}>
      <Summary editor={editor} outlook={outlook} warnings={warnings} />
      <span className={`muted ${styles.draftNote}`}>{editor.isDirty ? 'Draft kept in this tab' : ''}</span>
      <span className="grow wide-only" />
      <Button onClick={onCancel}>Cancel</Button>
      <Button
        variant="primary"
        className={styles.submit}
        busy={editor.saving !== 'idle' || editor.conflict !== null}
        lockedReason={lockedReason ?? flagLock(editor)}
        onClick={() => void editor.save()}
      >
        <SubmitText editor={editor} user={user} isRedundant={isRedundant(editor, outlook)} />
        <span className="wide-only">
          <Key>{`${MODIFIER}↵`}</Key>
        </span>
      </Button>
    </footer>
  );
}

function flagLock({ flag, loadError }: Editor): string | null {
  if (loadError instanceof UnreadableFlagError) return 'The flag cannot be read.';
  return flag?.archived_at ? 'The flag is archived.' : null;
}

function isRedundant({ resolved, draft }: Editor, { now }: Outlook): boolean {
  if (resolved.kind !== 'value' || !now || !draft.enabled) return false;
  const lower = withoutOverride(now);
  return lower !== undefined && formatValue(lower.value) === formatValue(resolved.value);
}

function warningCount({ resolved, flag, expiry }: Editor, { now, pending }: Outlook, user: User | undefined): number {
  if (resolved.kind !== 'value' || !flag || !now || !user) return 0;
  return findingsOf({
    user,
    flag,
    explanation: now,
    value: resolved.value,
    expiresAt: expiry.kind === 'at' ? expiry.time : null,
    pending,
    ruleName: (id) => id,
    formatTime: String,
  }).filter(({ kind }) => kind === 'warning').length;
}

/** Effect of the override in one line, for narrow screens where the preview is below the form. */
function Summary(props: { readonly editor: Editor; readonly outlook: Outlook; readonly warnings: number }) {
  const { editor, outlook, warnings } = props;
  if (editor.resolved.kind !== 'value' || !outlook.now) return null;
  return (
    <span className={styles.summary} aria-live="polite">
      <Value value={outlook.now.resolution?.value} className="cut" />
      <span aria-hidden>→</span>
      <Value value={editor.resolved.value} className="cut" />
      <LayerChip layer="override" />
      <span className="grow" />
      {warnings > 0 ? <WarningChip>{warnings === 1 ? '1 warning' : `${warnings} warnings`}</WarningChip> : null}
    </span>
  );
}

interface SubmitTextProps {
  readonly editor: Editor;
  readonly user: User | undefined;
  readonly isRedundant: boolean;
}

/** Label of the submit button: a sentence that says what the button will save. */
function SubmitText({ editor, user, isRedundant: changesNothing }: SubmitTextProps) {
  const { saving, resolved, flag, expiry, base, draft, openedAt } = editor;
  if (saving === 'retrying') return 'Trying again…';
  if (saving === 'saving') return 'Saving…';
  if (changesNothing) return 'Save anyway';
  if (resolved.kind !== 'value' || !flag || !user || expiry.kind === 'invalid') return base ? 'Save' : 'Set override';
  const until = untilText(expiry, openedAt, draft.expiry.zone);
  const text = formatValue(resolved.value);
  return (
    <>
      <span className={`${styles.longText} ${styles.submitText}`}>
        {base ? 'Change ' : 'Set '}
        <FlagName flag={flag} /> to <span className={styles.submitValue}>{shorten(text)}</span> for{' '}
        {personShortName(user)} {until}
      </span>
      <span className={`${styles.shortText} ${styles.submitText}`}>
        Set to {shorten(text)} {until}
      </span>
    </>
  );
}

function FlagName({ flag }: { readonly flag: Flag }) {
  return <span className={styles.submitValue}>{flag.name}</span>;
}

function untilText(expiry: Editor['expiry'], now: number, zone: string): string {
  return expiry.kind === 'at' ? `until ${formatInstant(expiry.time, now, zone)}` : 'without expiry';
}

function shorten(text: string): string {
  return text.length > 20 ? `${text.slice(0, 19)}…` : text;
}
