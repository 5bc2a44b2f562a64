import { lazy, Suspense } from 'react';
import type { Flag, Variant } from '../../api/types';
import { Choices, FieldGroup, Hint, TextArea, TextInput } from '../../ui/Field';
import { Value } from '../../values/parts';
import { sameValue } from '../../values/values';
import { OTHER, type ResolvedValue, type ValueDraft } from './draft';

const JsonField = lazy(() => import('./JsonField'));

interface ValueFieldProps {
  readonly flag: Flag;
  readonly draft: ValueDraft;
  readonly resolved: ResolvedValue;
  /** Current value of the flag for the user. */
  readonly current: unknown;
  readonly onChange: (draft: ValueDraft) => void;
  /** Error message of the server, or the hint that no value is chosen. */
  readonly error: string | null;
}

/** Input for a value of the flag's type. No value is preselected. */
export function ValueField({ flag, draft, resolved, current, onChange, error }: ValueFieldProps) {
  const shownError = error ?? (resolved.kind === 'error' && draft.text !== '' ? resolved.message : null);
  const warning = resolved.kind === 'value' ? resolved.warning : null;
  if (flag.flag_type === 'json') {
    return (
      <FieldGroup label="Value" error={shownError}>
        <Suspense fallback={<Hint>Loading…</Hint>}>
          <JsonField flag={flag} current={current} draft={draft} onChange={onChange} />
        </Suspense>
        {warning ? <Hint>{warning}</Hint> : null}
      </FieldGroup>
    );
  }
  const variants = flag.variants.map((variant) => ({
    value: variant.id,
    label: <VariantLabel variant={variant} isCurrent={sameValue(variant.value, current)} />,
  }));
  const other = { value: OTHER, label: flag.flag_type === 'number' ? 'Other number' : 'Other text' };
  return (
    <FieldGroup label="Value" error={shownError}>
      <Choices
        label="Value"
        options={flag.flag_type === 'boolean' ? variants : [...variants, other]}
        value={draft.choice}
        onChange={(choice) => onChange({ ...draft, choice })}
      />
      {draft.choice === OTHER && flag.flag_type === 'number' ? (
        <TextInput
          aria-label="Number"
          inputMode="decimal"
          value={draft.text}
          aria-invalid={shownError ? true : undefined}
          onChange={(event) => onChange({ choice: OTHER, text: event.target.value })}
        />
      ) : null}
      {draft.choice === OTHER && flag.flag_type === 'string' ? (
        <TextArea
          aria-label="Text"
          value={draft.text}
          onChange={(event) => onChange({ choice: OTHER, text: event.target.value })}
        />
      ) : null}
      {warning ? <Hint>{warning}</Hint> : null}
    </FieldGroup>
  );
}

function VariantLabel({ variant, isCurrent }: { readonly variant: Variant; readonly isCurrent: boolean }) {
  return (
    <>
      <Value value={variant.value} className="cut" />
      {variant.name ? <span className="muted">{variant.name}</span> : null}
      {isCurrent ? <span className="muted">served now</span> : null}
    </>
  );
}
