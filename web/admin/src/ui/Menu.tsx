import { Menu as BaseMenu } from '@base-ui/react/menu';
import type { ReactElement, ReactNode } from 'react';
import { classes } from './classes';
import styles from './Overlay.module.css';

interface MenuProps {
  /** The button that opens the menu. */
  readonly trigger: ReactElement;
  readonly children: ReactNode;
}

export function Menu({ trigger, children }: MenuProps) {
  return (
    <BaseMenu.Root modal={false}>
      <BaseMenu.Trigger render={trigger} />
      <BaseMenu.Portal>
        <BaseMenu.Positioner className={styles.positioner} align="end" sideOffset={4}>
          <BaseMenu.Popup className={styles.menu}>{children}</BaseMenu.Popup>
        </BaseMenu.Positioner>
      </BaseMenu.Portal>
    </BaseMenu.Root>
  );
}

interface MenuItemProps {
  readonly icon?: ReactNode;
  readonly onClick: () => void;
  readonly isDangerous?: boolean;
  readonly lockedReason?: string | null;
  readonly children: ReactNode;
}

export function MenuItem({ icon, onClick, isDangerous, lockedReason, children }: MenuItemProps) {
  return (
    <BaseMenu.Item
      className={classes(styles.item, isDangerous && styles.dangerous)}
      onClick={lockedReason ? undefined : onClick}
      closeOnClick={!lockedReason}
      aria-disabled={lockedReason ? true : undefined}
      title={lockedReason ?? undefined}
    >
      {icon}
      {children}
      {lockedReason ? <span className="visually-hidden">{lockedReason}</span> : null}
    </BaseMenu.Item>
  );
}

export function MenuSeparator() {
  return <BaseMenu.Separator className={styles.separator} />;
}

interface MenuChoiceProps<Value extends string> {
  readonly value: Value;
  readonly options: readonly { readonly value: Value; readonly label: string }[];
  readonly onChange: (value: Value) => void;
}

/** Items of which exactly one is checked. */
export function MenuChoice<Value extends string>({ value, options, onChange }: MenuChoiceProps<Value>) {
  return (
    <BaseMenu.RadioGroup value={value} onValueChange={(next: Value) => onChange(next)}>
      {options.map((option) => (
        <BaseMenu.RadioItem key={option.value} value={option.value} className={styles.item} closeOnClick>
          <span className="grow">{option.label}</span>
          <BaseMenu.RadioItemIndicator>✓</BaseMenu.RadioItemIndicator>
        </BaseMenu.RadioItem>
      ))}
    </BaseMenu.RadioGroup>
  );
}
