import type { Flag } from '../../api/types';
import { Button } from '../../ui/Button';
import { Hint, Select, TextArea } from '../../ui/Field';
import { formatValue, MAX_JSON_BYTES, parseJson } from '../../values/values';
import { OTHER, type ValueDraft } from './draft';
import styles from './editor.module.css';

interface JsonFieldProps {
  readonly flag: Flag;
  readonly current: unknown;
  readonly draft: ValueDraft;
  readonly onChange: (draft: ValueDraft) => void;
}

/** Text field for a JSON value. Offers the user's current value and the variants as starting points. */
export default function JsonField({ flag, current, draft, onChange }: JsonFieldProps) {
  const starts = [
    { id: 'current', label: `Value now: ${formatValue(current)}`, value: current },
    ...flag.variants.map((variant) => ({
      id: variant.id,
      label: `Variant ${variant.name ?? variant.id}: ${formatValue(variant.value)}`,
      value: variant.value,
    })),
  ];
  const parsed = parseJson(draft.text);
  const bytes = new TextEncoder().encode(draft.text).length;
  const set = (text: string) => onChange({ choice: text === '' ? null : OTHER, text });
  return (
    <>
      <Select
        aria-label="Start from"
        value=""
        onChange={(event) => {
          const start = starts.find(({ id }) => id === event.target.value);
          if (start) set(JSON.stringify(start.value, null, 2));
        }}
      >
        <option value="">Start from…</option>
        {starts.map(({ id, label }) => (
          <option key={id} value={id}>
            {label.slice(0, 80)}
          </option>
        ))}
      </Select>
      <TextArea
        className={styles.json}
        aria-label="JSON value"
        spellCheck={false}
        rows={8}
        value={draft.text}
        aria-invalid={draft.text !== '' && parsed.kind === 'error' ? true : undefined}
        onChange={(event) => set(event.target.value)}
      />
      <span className={styles.meter}>
        <Hint>
          {(bytes / 1024).toFixed(1)} of {MAX_JSON_BYTES / 1024} KiB
        </Hint>
        <Button
          small
          variant="quiet"
          lockedReason={parsed.kind === 'error' ? 'The text is not valid JSON.' : null}
          onClick={() => parsed.kind === 'value' && set(JSON.stringify(parsed.value, null, 2))}
        >
          Format
        </Button>
      </span>
    </>
  );
}
