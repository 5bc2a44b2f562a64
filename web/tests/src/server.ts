/** Starts the real server with a database of its own, and manages its flags and users as an admin. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** Absolute path of Cargo's target directory. */
export const TARGET_DIR = resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target');
const SERVER_BINARY = join(TARGET_DIR, 'debug', 'server');

export interface User {
  readonly id: string;
  readonly email: string;
  /** API token that acts as the user. */
  readonly token: string;
}

export class Server {
  readonly #folder: string;
  readonly #options: string[];
  #process: ChildProcess | null = null;
  readonly #adminToken: string;
  /** URL of the server without a trailing slash. Empty until it listens. */
  baseUrl = '';

  private constructor(folder: string, options: string[]) {
    this.#folder = folder;
    this.#options = options;
    this.#adminToken = this.#runCommand('token', 'create', '--name', 'admin', '--role', 'admin');
  }

  /** Starts a server with a new SQLite file and a free port. `options` are command-line options. */
  static async start(...options: string[]): Promise<Server> {
    if (!existsSync(SERVER_BINARY)) throw new Error(`${SERVER_BINARY} is not built: run \`cargo build --bins\` first`);
    const server = new Server(mkdtempSync(join(tmpdir(), 'flags-web-')), options);
    await server.startProcess();
    return server;
  }

  /** Starts the process and waits until it listens. Later starts use the address of the first one. */
  async startProcess(): Promise<void> {
    const bind = this.baseUrl === '' ? '127.0.0.1:0' : new URL(this.baseUrl).host;
    const child = spawn(SERVER_BINARY, ['--bind', bind, '--database-url', this.#databaseUrl, ...this.#options], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, FLAGS_LOG: 'warn' },
    });
    this.#process = child;
    for await (const line of createInterface({ input: child.stdout })) {
      const address = /^listening on (\S+)/.exec(line)?.[1];
      if (address) {
        this.baseUrl = address.startsWith('http') ? address : `http://${address}`;
        return;
      }
    }
    throw new Error('the server exited before it listened');
  }

  /** Kills the process or shuts it down gracefully, and waits until it exits. The database remains. */
  async stopProcess(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }

  /** Stops the process and deletes the database. */
  async dispose(): Promise<void> {
    await this.stopProcess('SIGTERM');
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Sends a request with the admin's token. Throws for any status other than 2xx. */
  async requestAsAdmin(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const response = await fetch(this.baseUrl + path, {
      method,
      headers: { Authorization: `Bearer ${this.#adminToken}`, 'Content-Type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === '' ? {} : JSON.parse(text);
  }

  /** Changes the database without the server, as a newer version of the server may do. Needs `python3`. */
  executeSql(sql: string): void {
    const program = 'import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=5).executescript(sys.argv[2])';
    const result = spawnSync('python3', ['-c', program, join(this.#folder, 'flags.db'), sql], { encoding: 'utf8' });
    if (result.error) throw new Error(`cannot run python3: ${result.error.message}`);
    if (result.status !== 0) throw new Error(`python3: ${result.stderr}`);
  }

  async createUser(name: string, attributes = {}): Promise<User> {
    const email = `${name}@example.com`;
    const { id } = await this.requestAsAdmin('POST', '/api/admin/users', { email, attributes });
    const body = { name, role: 'user', user_id: id };
    const { token } = await this.requestAsAdmin('POST', '/api/admin/api-tokens', body);
    return { id: String(id), email, token: String(token) };
  }

  /** Creates a user with a password and signs in. Returns the session cookie. */
  async createUserAndSignIn(name: string): Promise<string> {
    const account = { email: `${name}@example.com`, password: 'correct horse battery' };
    await this.requestAsAdmin('POST', '/api/admin/users', account);
    const response = await fetch(`${this.baseUrl}/api/auth/login`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(account),
    });
    return response.headers.get('Set-Cookie')?.split(';')[0] ?? '';
  }

  /** Creates an API token with scope `evaluate`, which may evaluate flags for any user. */
  async createEvaluatorToken(): Promise<string> {
    const body = { name: 'evaluator', scope: 'evaluate' };
    const { token } = await this.requestAsAdmin('POST', '/api/admin/api-tokens', body);
    return String(token);
  }

  /** Creates a boolean flag that serves `false`, or a flag with these values as variants that serves the first. */
  async createFlag(name: string, values?: readonly unknown[], extraFields = {}): Promise<void> {
    const first = values?.[0];
    const type = typeof first === 'string' ? 'string' : typeof first === 'number' ? 'number' : 'json';
    const variants = values?.map((value, index) => ({ id: `v${index}`, value }));
    const typed = { flag_type: type, variants, default: { variant: 'v0' }, off_variant: 'v0' };
    await this.requestAsAdmin('POST', '/api/admin/feature-flags', {
      name,
      ...(values ? typed : { flag_type: 'boolean' }),
      ...extraFields,
    });
  }

  /** Creates or replaces the user's override of a flag. */
  async setOverride(user: User, flagName: string, value: unknown, extraFields = {}): Promise<void> {
    await this.requestAsAdmin('PUT', `/api/admin/users/${user.id}/flag-overrides/${flagName}`, {
      override_value: value,
      ...extraFields,
    });
  }

  async removeOverride(user: User, flagName: string): Promise<void> {
    await this.requestAsAdmin('DELETE', `/api/admin/users/${user.id}/flag-overrides/${flagName}`);
  }

  get #databaseUrl(): string {
    return `sqlite://${join(this.#folder, 'flags.db')}`;
  }

  /** Runs a subcommand of the server and returns its standard output. */
  #runCommand(...command: string[]): string {
    const result = spawnSync(SERVER_BINARY, [...command, '--database-url', this.#databaseUrl], { encoding: 'utf8' });
    if (result.status !== 0) throw new Error(`server ${command.join(' ')}: ${result.stderr}`);
    return result.stdout.trim();
  }
}
