import { ChevronsUpDownIcon, CircleAlertIcon, SearchIcon, XIcon } from 'lucide-react';
import { type ComponentProps, type ReactNode, type Ref, useEffect, useId, useRef, useState } from 'react';
import { classes } from './classes';
import styles from './Field.module.css';

interface FieldProps {
  readonly label: string;
  /** Shown at the end of the label's line. */
  readonly aside?: ReactNode;
  readonly hint?: ReactNode;
  readonly error?: string | null | undefined;
  /** Receives the attributes that connect the control with label, hint and error. */
  readonly children: (control: ControlProps) => ReactNode;
}

export interface ControlProps {
  readonly id: string;
  readonly 'aria-describedby'?: string;
  readonly 'aria-invalid'?: true;
}

/** Label, control, hint and error. */
export function Field({ label, aside, hint, error, children }: FieldProps) {
  const id = useId();
  const hintId = `${id}-hint`;
  const errorId = `${id}-error`;
  const descriptions = [error ? errorId : null, hint ? hintId : null].filter(Boolean).join(' ');
  return (
    <div className={styles.field}>
      <label className={styles.label} htmlFor={id}>
        <span>{label}</span>
        {aside ? <span className={styles.aside}>{aside}</span> : null}
      </label>
      {children({
        id,
        ...(descriptions ? { 'aria-describedby': descriptions } : {}),
        ...(error ? { 'aria-invalid': true } : {}),
      })}
      {error ? <FieldErrorText id={errorId}>{error}</FieldErrorText> : null}
      {hint ? (
        <span id={hintId} className={styles.hint}>
          {hint}
        </span>
      ) : null}
    </div>
  );
}

export function FieldErrorText({ id, children }: { readonly id?: string; readonly children: ReactNode }) {
  return (
    <span id={id} className={styles.error} role="alert">
      <CircleAlertIcon size={14} aria-hidden />
      <span>{children}</span>
    </span>
  );
}

/** Group of controls with a common label. */
export function FieldGroup(props: {
  readonly label: string;
  readonly aside?: ReactNode;
  readonly error?: string | null | undefined;
  readonly children: ReactNode;
}) {
  return (
    <fieldset className={styles.field}>
      <legend className="visually-hidden">{props.label}</legend>
      <span className={styles.label} aria-hidden>
        <span>{props.label}</span>
        {props.aside ? <span className={styles.aside}>{props.aside}</span> : null}
      </span>
      {props.children}
      {props.error ? <FieldErrorText>{props.error}</FieldErrorText> : null}
    </fieldset>
  );
}

export function Hint({ children }: { readonly children: ReactNode }) {
  return <span className={styles.hint}>{children}</span>;
}

interface TextInputProps extends ComponentProps<'input'> {
  readonly icon?: ReactNode;
  readonly end?: ReactNode;
  readonly boxClassName?: string | undefined;
}

/** Input in a box that shows the focus ring around everything that belongs to it. */
export function TextInput({ icon, end, boxClassName, ...input }: TextInputProps) {
  return (
    <span className={classes(styles.input, input['aria-invalid'] ? styles.invalid : null, boxClassName)}>
      {icon}
      <input autoComplete="off" spellCheck={false} {...input} />
      {end}
    </span>
  );
}

export function TextArea(props: ComponentProps<'textarea'>) {
  return (
    <textarea
      {...props}
      className={classes(styles.input, props['aria-invalid'] ? styles.invalid : null, props.className)}
    />
  );
}

/** Native select with the look of an input. */
export function Select({
  icon,
  children,
  boxClassName,
  ...props
}: ComponentProps<'select'> & {
  readonly icon?: ReactNode;
  readonly boxClassName?: string | undefined;
}) {
  return (
    <span className={classes(styles.input, boxClassName)}>
      {icon}
      <select {...props}>{children}</select>
      <ChevronsUpDownIcon size={14} aria-hidden />
    </span>
  );
}

/** Delay between the last key press and the search; milliseconds. */
const SEARCH_DELAY = 200;

interface SearchFieldProps {
  readonly label: string;
  readonly placeholder: string;
  readonly value: string;
  readonly onChange: (value: string) => void;
  readonly className?: string | undefined;
  /** Why the list cannot be searched now. */
  readonly lockedReason?: string | undefined;
}

/** Search field of a list. The key `/` focuses it. Calls `onChange` after a short delay. */
export function SearchField({ label, placeholder, value, onChange, className, lockedReason }: SearchFieldProps) {
  const [text, setText] = useState(value);
  const reported = useRef(value);
  const input: Ref<HTMLInputElement> = useRef(null);
  useEffect(() => {
    // Adopts a value that changed outside of the field, for example through Back or "Clear filters".
    if (value === reported.current) return;
    reported.current = value;
    setText(value);
  }, [value]);
  useEffect(() => {
    if (text === reported.current) return;
    const timer = setTimeout(() => {
      reported.current = text;
      onChange(text);
    }, SEARCH_DELAY);
    return () => clearTimeout(timer);
  }, [text, onChange]);
  return (
    <span className={classes(styles.input, className)} title={lockedReason}>
      <SearchIcon size={16} aria-hidden />
      <input
        ref={input}
        type="search"
        aria-label={label}
        placeholder={lockedReason ?? placeholder}
        value={text}
        readOnly={lockedReason !== undefined}
        aria-disabled={lockedReason !== undefined || undefined}
        data-search-field
        maxLength={255}
        autoComplete="off"
        spellCheck={false}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape' && text !== '') {
            event.stopPropagation();
            setText('');
          }
        }}
      />
      {text === '' ? (
        <kbd className={classes(styles.key, 'wide-only')} aria-hidden>
          /
        </kbd>
      ) : (
        <button
          type="button"
          className={styles.clear}
          aria-label="Clear search"
          onClick={() => {
            setText('');
            input.current?.focus();
          }}
        >
          <XIcon size={14} aria-hidden />
        </button>
      )}
    </span>
  );
}

interface CheckboxProps extends Omit<ComponentProps<'input'>, 'type'> {
  readonly indeterminate?: boolean;
}

export function Checkbox({ indeterminate = false, ...props }: CheckboxProps) {
  return (
    <input
      {...props}
      type="checkbox"
      className={styles.check}
      ref={(element) => {
        if (element) element.indeterminate = indeterminate;
      }}
    />
  );
}

export function CheckboxLine(props: CheckboxProps & { readonly label: ReactNode }) {
  const { label, ...checkbox } = props;
  return (
    // biome-ignore lint/a11y/noLabelWithoutControl: the control is in the component Checkbox
    <label className={styles.checkLine}>
      <Checkbox {...checkbox} />
      <span>{label}</span>
    </label>
  );
}

interface SwitchProps {
  readonly label: string;
  readonly isOn: boolean;
  readonly onClick: () => void;
  readonly lockedReason?: string | null;
}

/** Switch whose state the parent controls. A click only calls `onClick`. */
export function Switch({ label, isOn, onClick, lockedReason }: SwitchProps) {
  return (
    <button
      type="button"
      role="switch"
      aria-checked={isOn}
      aria-label={lockedReason ? `${label} (${lockedReason})` : label}
      aria-disabled={lockedReason ? true : undefined}
      title={lockedReason ?? undefined}
      className={styles.switch}
      onClick={(event) => {
        event.stopPropagation();
        if (!lockedReason) onClick();
      }}
    />
  );
}

interface Option<Value extends string> {
  readonly value: Value;
  readonly label: ReactNode;
}

interface OptionsProps<Value extends string> {
  readonly label: string;
  readonly options: readonly Option<Value>[];
  readonly value: Value | null;
  readonly onChange: (value: Value) => void;
}

/** Radio buttons as one segmented control. */
export function Segments<Value extends string>({ label, options, value, onChange }: OptionsProps<Value>) {
  const name = useId();
  return (
    <div className={styles.segments} role="radiogroup" aria-label={label}>
      {options.map((option) => (
        <label key={option.value} className={styles.segment}>
          <input
            type="radio"
            name={name}
            checked={option.value === value}
            onChange={() => onChange(option.value)}
            onClick={() => onChange(option.value)}
          />
          {option.label}
        </label>
      ))}
    </div>
  );
}

/** Radio buttons as cards. */
export function Choices<Value extends string>({ label, options, value, onChange }: OptionsProps<Value>) {
  const name = useId();
  return (
    <div className={styles.choices} role="radiogroup" aria-label={label}>
      {options.map((option) => (
        <label key={option.value} className={styles.choice}>
          <input type="radio" name={name} checked={option.value === value} onChange={() => onChange(option.value)} />
          {option.label}
        </label>
      ))}
    </div>
  );
}

interface FilterChipProps {
  readonly label: string;
  readonly icon?: ReactNode;
  readonly count?: string | undefined;
  readonly isOn: boolean;
  readonly onClick: () => void;
  readonly lockedReason?: string | undefined;
}

export function FilterChip({ label, icon, count, isOn, onClick, lockedReason }: FilterChipProps) {
  return (
    <button
      type="button"
      className={styles.chip}
      aria-pressed={isOn}
      aria-disabled={lockedReason ? true : undefined}
      title={lockedReason}
      onClick={lockedReason ? undefined : onClick}
    >
      {icon}
      {label}
      {count === undefined ? null : <span className={styles.chipCount}>{count}</span>}
    </button>
  );
}
