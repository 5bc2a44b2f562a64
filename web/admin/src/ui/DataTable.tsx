import { type ColumnDef, type RowData, tableFeatures, useTable } from '@tanstack/react-table';
import { type KeyboardEvent, type MouseEvent, type ReactNode, useMemo, useRef } from 'react';
import { classes } from './classes';
import styles from './DataTable.module.css';

// The server sorts, filters and pages. The table only renders columns and rows.
const features = tableFeatures({});

export interface Column<Row> {
  readonly id: string;
  /** Content of the column header. */
  readonly head: ReactNode;
  /** CSS class of header and cells. Sets the width, and the position in two-line rows. */
  readonly className?: string | undefined;
  readonly cell: (row: Row) => ReactNode;
}

interface DataTableProps<Row> {
  readonly label: string;
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[];
  readonly rowId: (row: Row) => string;
  readonly className?: string | undefined;
  /** Called when a row is clicked, or Enter is pressed in it. */
  readonly onOpen?: ((row: Row) => void) | undefined;
  /** Called when `x` is pressed in a row. With Shift, `range` is true: select all rows from the last selected one. */
  readonly onSelect?: ((row: Row, range: boolean) => void) | undefined;
  readonly isSelected?: (row: Row) => boolean;
  readonly isChanged?: (row: Row) => boolean;
  /** Whether single-letter shortcuts work in rows. */
  readonly letterShortcuts: boolean;
}

/** Whether a click hits a control in the row, or an overlay that the row opened, instead of the row itself. */
function hitsControl(target: EventTarget, row: Element): boolean {
  if (!(target instanceof Element) || !row.contains(target)) return true;
  const control = target.closest('a, button, input, label');
  return control !== null && row.contains(control);
}

export function DataTable<Row extends RowData>(props: DataTableProps<Row>) {
  const { label, columns, rows, rowId, className, onOpen, onSelect, isSelected, isChanged, letterShortcuts } = props;
  const body = useRef<HTMLTableSectionElement>(null);
  const columnIds = columns.map(({ id }) => id).join();
  // The definitions contain only ids. Cells call the render functions themselves, so changed functions do not remount
  // the cells.
  const definitions = useMemo(
    () => columnIds.split(',').map((id): ColumnDef<typeof features, Row> => ({ id })),
    [columnIds],
  );
  const table = useTable({
    features,
    columns: definitions,
    data: rows as Row[],
    getRowId: rowId,
  });
  const columnOf = new Map(columns.map((column) => [column.id, column]));

  const onKeyDown = (event: KeyboardEvent<HTMLTableRowElement>, row: Row) => {
    if (event.target !== event.currentTarget || event.metaKey || event.ctrlKey || event.altKey) return;
    const moves: Record<string, 'nextElementSibling' | 'previousElementSibling'> = {
      ArrowDown: 'nextElementSibling',
      ArrowUp: 'previousElementSibling',
      ...(letterShortcuts && { j: 'nextElementSibling', k: 'previousElementSibling' }),
    };
    const move = moves[event.key];
    if (move) {
      const next = event.currentTarget[move];
      if (next instanceof HTMLElement) next.focus();
    } else if (event.key === 'Enter' || (letterShortcuts && event.key === 'e')) onOpen?.(row);
    else if (letterShortcuts && event.key.toLowerCase() === 'x') onSelect?.(row, event.shiftKey);
    else return;
    event.preventDefault();
  };
  const onClick = (event: MouseEvent<HTMLTableRowElement>, row: Row) => {
    if (!hitsControl(event.target, event.currentTarget)) onOpen?.(row);
  };

  return (
    <table className={classes(styles.table, className)} role="table" aria-label={label}>
      <thead role="rowgroup">
        {table.getHeaderGroups().map((group) => (
          <tr key={group.id} role="row">
            {group.headers.map((header) => (
              <th key={header.id} role="columnheader" className={columnOf.get(header.id)?.className}>
                {columnOf.get(header.id)?.head}
              </th>
            ))}
          </tr>
        ))}
      </thead>
      <tbody ref={body} role="rowgroup">
        {table.getRowModel().rows.map((row, index) => (
          <tr
            key={row.id}
            role="row"
            data-row-id={row.id}
            tabIndex={index === 0 ? 0 : -1}
            className={classes(
              onOpen && styles.clickable,
              isSelected?.(row.original) && styles.selected,
              isChanged?.(row.original) && styles.changed,
            )}
            onKeyDown={(event) => onKeyDown(event, row.original)}
            onClick={(event) => onClick(event, row.original)}
          >
            {row.getAllCells().map((cell) => (
              <td key={cell.id} role="cell" className={columnOf.get(cell.column.id)?.className}>
                {columnOf.get(cell.column.id)?.cell(row.original)}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Scrolling area of a table. */
export function TableArea({ children, busy }: { readonly children: ReactNode; readonly busy?: boolean }) {
  return (
    <section className={styles.wrap} aria-busy={busy || undefined} aria-label="Rows">
      {children}
    </section>
  );
}
