import { useQuery } from '@tanstack/react-query';
import { Link, useLocation } from '@tanstack/react-router';
import {
  CircleUserIcon,
  FlagIcon,
  IdCardLanyardIcon,
  type LucideIcon,
  MonitorIcon,
  MoonIcon,
  SunIcon,
  ToggleRightIcon,
  UsersIcon,
} from 'lucide-react';
import { type ReactNode, useEffect, useRef } from 'react';
import { ADDRESSES } from '../addresses';
import { flagsQuery } from '../api/queries';
import { Initials } from '../people/PersonLabel';
import { personName } from '../people/people';
import { setPreferences, type Theme, usePreferences } from '../preferences/preferences';
import { roleLabel } from '../session/roles';
import { useHasPermission, useIdentity } from '../session/session';
import { classes } from '../ui/classes';
import { formatTotal } from '../ui/Pager';
import styles from './Shell.module.css';

/** Layout of all pages: sidebar, main area, and on phones a bar at the bottom. */
export function Frame({ children }: { readonly children: ReactNode }) {
  const main = useRef<HTMLElement>(null);
  const { pathname } = useLocation();
  const shown = useRef(pathname);
  useEffect(() => {
    // Moves the focus to the new page, so that screen readers and keyboard users continue there.
    if (shown.current === pathname) return;
    shown.current = pathname;
    if (document.activeElement === document.body) main.current?.focus({ preventScroll: true });
  }, [pathname]);
  return (
    <div className={styles.app}>
      <a className={styles.skip} href="#main">
        Skip to content
      </a>
      <Sidebar />
      <main id="main" ref={main} className={styles.main} tabIndex={-1}>
        {children}
      </main>
      <BottomBar />
    </div>
  );
}

function NavItem(props: {
  readonly to: (typeof ADDRESSES)['flags' | 'users' | 'myFlags' | 'userOverrides' | 'profile'];
  readonly Icon: LucideIcon;
  readonly label: string;
  readonly count?: string;
  readonly isCurrent: boolean;
}) {
  const { to, Icon, label, count, isCurrent } = props;
  return (
    <Link to={to} className={styles.nav} title={label} aria-current={isCurrent ? 'page' : undefined} activeProps={{}}>
      <Icon size={16} aria-hidden />
      <span className={styles.word}>{label}</span>
      {count ? <span className={styles.count}>{count}</span> : null}
    </Link>
  );
}

function Sidebar() {
  const identity = useIdentity();
  const canRead = useHasPermission('read');
  const { pathname } = useLocation();
  return (
    <nav className={styles.sidebar} aria-label="Main">
      <div className={styles.brand}>
        <span className={styles.brandMark}>
          <FlagIcon size={12} strokeWidth={2} aria-hidden />
        </span>
        <span className={styles.word}>Feature Flags</span>
      </div>
      {canRead ? <AdminPages pathname={pathname} /> : null}
      {identity.id ? (
        <NavItem
          to={ADDRESSES.myFlags}
          Icon={ToggleRightIcon}
          label="My flags"
          isCurrent={pathname === ADDRESSES.myFlags}
        />
      ) : null}
      <div className={styles.foot}>
        <ThemeButton />
        <Link
          to={ADDRESSES.profile}
          className={styles.nav}
          aria-current={pathname === ADDRESSES.profile ? 'page' : undefined}
          title="Profile"
        >
          <Initials person={identity} />
          <span className={classes(styles.word, 'cut')}>
            {identity.user_label ? personName(identity) : 'API token'}
          </span>
          <span className={styles.count}>{roleLabel(identity.role)}</span>
        </Link>
      </div>
    </nav>
  );
}

function AdminPages({ pathname }: { readonly pathname: string }) {
  const flags = useQuery(flagsQuery({ archived: false, limit: 1 }));
  return (
    <>
      <NavItem
        to={ADDRESSES.flags}
        Icon={FlagIcon}
        label="Flags"
        count={formatTotal(flags.data)}
        isCurrent={pathname.startsWith('/flag')}
      />
      <NavItem to={ADDRESSES.users} Icon={UsersIcon} label="Users" isCurrent={pathname.startsWith(ADDRESSES.users)} />
    </>
  );
}

const NEXT_THEME: Record<Theme, Theme> = { system: 'light', light: 'dark', dark: 'system' };
const THEME_ICONS: Record<Theme, LucideIcon> = { system: MonitorIcon, light: SunIcon, dark: MoonIcon };

function ThemeButton() {
  const { theme } = usePreferences();
  const Icon = THEME_ICONS[theme];
  return (
    <button
      type="button"
      className={styles.nav}
      title={`Theme: ${theme}`}
      onClick={() => setPreferences({ theme: NEXT_THEME[theme] })}
    >
      <Icon size={16} aria-hidden />
      <span className={styles.word}>Theme: {theme}</span>
    </button>
  );
}

function BottomBar() {
  const identity = useIdentity();
  const canRead = useHasPermission('read');
  const { pathname } = useLocation();
  const items = [
    ...(canRead
      ? ([
          {
            to: ADDRESSES.flags,
            Icon: FlagIcon,
            label: 'Flags',
            isCurrent: pathname.startsWith('/flag') && pathname !== ADDRESSES.userOverrides,
          },
          {
            to: ADDRESSES.userOverrides,
            Icon: IdCardLanyardIcon,
            label: 'Overrides',
            isCurrent: pathname === ADDRESSES.userOverrides,
          },
          { to: ADDRESSES.users, Icon: UsersIcon, label: 'Users', isCurrent: pathname.startsWith(ADDRESSES.users) },
        ] as const)
      : []),
    ...(identity.id
      ? ([
          {
            to: ADDRESSES.myFlags,
            Icon: ToggleRightIcon,
            label: 'My flags',
            isCurrent: pathname === ADDRESSES.myFlags,
          },
        ] as const)
      : []),
    {
      to: ADDRESSES.profile,
      Icon: CircleUserIcon,
      label: 'Profile',
      isCurrent: pathname === ADDRESSES.profile,
    } as const,
  ];
  return (
    <nav className={styles.bottombar} aria-label="Main">
      {items.map(({ to, Icon, label, isCurrent }) => (
        <Link key={to} to={to} aria-current={isCurrent ? 'page' : undefined}>
          <Icon size={20} aria-hidden />
          {label}
        </Link>
      ))}
    </nav>
  );
}
