/** The real server on a database of its own, and an admin who acts on it. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** Where the build puts things. */
export const TARGET = resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target');
const BINARY = join(TARGET, 'debug', 'server');

export interface User {
  readonly id: string;
  readonly email: string;
  /** An API token that acts as them. */
  readonly token: string;
}

export class Server {
  readonly #folder: string;
  readonly #options: string[];
  #process: ChildProcess | null = null;
  /** An admin's API token. */
  readonly admin: string;
  base = '';

  private constructor(folder: string, options: string[]) {
    this.#folder = folder;
    this.#options = options;
    this.admin = this.#run('token', 'create', '--name', 'admin', '--role', 'admin');
  }

  /** Starts a server with these options on a new SQLite file and a free port. */
  static async start(...options: string[]): Promise<Server> {
    if (!existsSync(BINARY)) throw new Error(`${BINARY} is not built: run \`cargo build --bins\` first`);
    const server = new Server(mkdtempSync(join(tmpdir(), 'flags-web-')), options);
    await server.restart();
    return server;
  }

  /** Starts the process again, on the same address. */
  async restart(): Promise<void> {
    const bind = this.base === '' ? '127.0.0.1:0' : new URL(this.base).host;
    const child = spawn(BINARY, ['--bind', bind, '--database-url', this.#url, ...this.#options], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, FLAGS_LOG: 'warn' },
    });
    this.#process = child;
    for await (const line of createInterface({ input: child.stdout })) {
      const address = /^listening on (\S+)/.exec(line)?.[1];
      if (address) {
        this.base = address.startsWith('http') ? address : `http://${address}`;
        return;
      }
    }
    throw new Error('the server ended before it listened');
  }

  /** Ends the process: at once, or as the operator would. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  async stop(): Promise<void> {
    await this.end('SIGTERM');
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** A request of the admin; what is not 2xx throws. */
  async call(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const response = await fetch(this.base + path, {
      method,
      headers: { Authorization: `Bearer ${this.admin}`, 'Content-Type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === '' ? {} : JSON.parse(text);
  }

  async user(name: string, attributes = {}): Promise<User> {
    const email = `${name}@example.com`;
    const { id } = await this.call('POST', '/api/admin/users', { email, attributes });
    const body = { name, role: 'user', user_id: id };
    const { token } = await this.call('POST', '/api/admin/api-tokens', body);
    return { id: String(id), email, token: String(token) };
  }

  /** Makes a user who can sign in, and does so; returns the cookie. */
  async signIn(name: string): Promise<string> {
    const account = { email: `${name}@example.com`, password: 'correct horse battery' };
    await this.call('POST', '/api/admin/users', account);
    const response = await fetch(`${this.base}/api/auth/login`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(account),
    });
    return response.headers.get('Set-Cookie')?.split(';')[0] ?? '';
  }

  /** An API token that may evaluate flags for anybody, and do nothing else. */
  async evaluator(): Promise<string> {
    const { token } = await this.call('POST', '/api/admin/api-tokens', { name: 'evaluator', scope: 'evaluate' });
    return String(token);
  }

  /** A boolean flag that gives `false`, or a flag of another type that gives the first of these values. */
  async flag(name: string, values?: readonly unknown[], more = {}): Promise<void> {
    const first = values?.[0];
    const type = typeof first === 'string' ? 'string' : typeof first === 'number' ? 'number' : 'json';
    const variants = values?.map((value, place) => ({ id: `v${place}`, value }));
    const typed = { flag_type: type, variants, default: { variant: 'v0' }, off_variant: 'v0' };
    await this.call('POST', '/api/admin/feature-flags', {
      name,
      ...(values ? typed : { flag_type: 'boolean' }),
      ...more,
    });
  }

  /** Gives a user this value of a flag, from now on. */
  async override(user: User, flagName: string, value: unknown, more = {}): Promise<void> {
    await this.call('PUT', `/api/admin/users/${user.id}/flag-overrides/${flagName}`, {
      override_value: value,
      ...more,
    });
  }

  async removeOverride(user: User, flagName: string): Promise<void> {
    await this.call('DELETE', `/api/admin/users/${user.id}/flag-overrides/${flagName}`);
  }

  get #url(): string {
    return `sqlite://${join(this.#folder, 'flags.db')}`;
  }

  /** Runs a command of the server to its end; returns what it printed. */
  #run(...command: string[]): string {
    const done = spawnSync(BINARY, [...command, '--database-url', this.#url], { encoding: 'utf8' });
    if (done.status !== 0) throw new Error(`server ${command.join(' ')}: ${done.stderr}`);
    return done.stdout.trim();
  }
}
