import neostandard, { plugins } from 'neostandard'

export default [
  { ignores: ['dist', '.tap', 'node_modules'] },
  ...neostandard({ ts: true }),
  { rules: { 'max-lines': ['error', 400] } },
  {
    files: ['**/*.ts'],
    plugins: { '@typescript-eslint': plugins['typescript-eslint'].plugin },
    // A schema and the type made of it share a name.
    rules: { '@typescript-eslint/no-explicit-any': 'error', '@typescript-eslint/no-redeclare': 'off' }
  }
]
