// A strict third-party authorization server (npm `oidc-provider`, certified) dressed in the manner of "Log in with
// Telegram": the client authenticates by Basic, there is no refresh token, the numeric `id` stands beside an opaque `sub`, the
// bot chooses the algorithm, and the nonce may stay away. It has no Bot API. README.md says how to drive it.
import { generateKeyPairSync } from 'node:crypto';
import { options, person, rewrite, sendJson, serve } from './manners.mjs';

const given = options({
  algorithm: { type: 'string', default: 'RS256' },
  'person-id': { type: 'string', default: '987654321' },
  'without-nonce': { type: 'boolean', default: false },
});
const KEYS = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};
const jwk = (alg) => ({ ...KEYS[alg]().privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `oidc-${alg.toLowerCase()}-1` });
if (!(given.algorithm in KEYS)) {
  process.stderr.write(`--algorithm is one of ${Object.keys(KEYS).join(', ')}\n`);
  process.exit(2);
}

await serve(given, (origin) => ({
  client: {
    grant_types: ['authorization_code'],
    id_token_signed_response_alg: given.algorithm,
    token_endpoint_auth_method: 'client_secret_basic',
  },
  configuration: {
    jwks: { keys: Object.keys(KEYS).map(jwk) },
    scopes: ['openid', 'profile', 'phone', 'telegram:bot_access'],
    claims: { openid: ['sub'], profile: ['id', 'name', 'preferred_username'], phone: ['phone_number'] },
    ttl: { AccessToken: 3600, AuthorizationCode: 600, IdToken: 3600, Grant: 3600, Interaction: 600, Session: 86_400 },
    features: { devInteractions: { enabled: false }, userinfo: { enabled: false } },
    routes: { authorization: '/auth', token: '/token', jwks: '/.well-known/jwks.json' },
    findAccount: (_ctx, sub) => ({
      accountId: sub,
      claims: () => ({ sub, id: Number(given['person-id']), name: 'Ada', preferred_username: 'ada_test', phone_number: '15551234567' }),
    }),
  },

  announce: {
    manner: 'telegram',
    refreshes: false,
    issuer: origin,
    authorize_url: `${origin}/auth`,
    token_url: `${origin}/token`,
    jwks_url: `${origin}/.well-known/jwks.json`,
  },

  async handle(request, response, url, inside) {
    if (given['without-nonce'] && url.pathname === '/auth') {
      url.searchParams.delete('nonce');
      return rewrite(request, url);
    }
    // The strict side takes the secret in the form as well; Telegram's documentation does not.
    if (url.pathname === '/token' && !(request.headers.authorization ?? '').startsWith('Basic ')) {
      sendJson(response, 401, { error: 'invalid_client' });
      return true;
    }
    // A number of 19 digits, as in Telegram's own example, which is not the person's.
    return person(request, response, url, inside, { account: () => '1234567890123456789', consented: () => {} });
  },
}));
