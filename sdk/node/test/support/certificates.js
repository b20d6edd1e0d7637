/** Certificates for tests, made with the command `openssl`. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

export function openssl(...words) {
  execFileSync('openssl', words.map(String), { stdio: 'ignore', timeout: 60_000 });
}

export function hasOpenssl() {
  try {
    openssl('version');
    return true;
  } catch {
    return false;
  }
}

/** Two authorities, and certificates of each, in a folder that is removed at the end of the process. */
export class Certificates {
  folder = mkdtempSync(join(tmpdir(), 'oncecast-tls-'));

  constructor() {
    process.on('exit', () => rmSync(this.folder, { recursive: true, force: true }));
    this.authority = this.makeAuthority('authority');
    this.other = this.makeAuthority('other');
    this.consumer = this.issue('consumer');
    this.dispatcher = this.issue('dispatcher');
    this.stranger = this.issue('stranger', this.other);
    this.expired = this.issue('expired', this.authority, -1);
  }

  makeAuthority(name) {
    const files = this.#files(name);
    const out = ['-keyout', files.key, '-out', files.cert];
    openssl('req', '-x509', ...EC, '-days', 2, '-subj', `/CN=${name}`, ...out);
    return files;
  }

  /** For servers at 127.0.0.1 and for clients; expired if `days` is negative. */
  issue(name, authority = this.authority, days = 2) {
    const files = this.#files(name);
    const [request, extensions] = [`${files.cert}.csr`, `${files.cert}.ext`];
    writeFileSync(extensions, 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n');
    openssl('req', ...EC, '-subj', `/CN=${name}`, '-keyout', files.key, '-out', request);
    const signed = ['-CA', authority.cert, '-CAkey', authority.key, '-CAcreateserial', '-extfile', extensions];
    openssl('x509', '-req', '-in', request, ...signed, '-days', days, '-out', files.cert);
    return files;
  }

  #files(name) {
    return { cert: join(this.folder, `${name}.pem`), key: join(this.folder, `${name}.key`) };
  }
}

/** Writes beside the file and renames, as a program that renews certificates should. */
export function replace(path, content, mode = 0o600) {
  writeFileSync(`${path}.new`, content, { mode });
  renameSync(`${path}.new`, path);
}
