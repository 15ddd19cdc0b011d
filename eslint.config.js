import neostandard, { plugins } from 'neostandard'

const typescript = plugins['typescript-eslint'].plugin

export default [
  { ignores: ['dist', '.tap', 'node_modules'] },
  ...neostandard({ ts: true }),
  { rules: { 'max-lines': ['error', 500], '@stylistic/max-len': ['error', { code: 140, tabWidth: 2 }] } },
  {
    files: ['**/*.ts'],
    plugins: { '@typescript-eslint': typescript },
    // A schema and the type derived from it share a name.
    rules: { '@typescript-eslint/no-explicit-any': 'error', '@typescript-eslint/no-redeclare': 'off' }
  },
  {
    files: ['src/**/*.ts', 'plugins/**/*.ts', 'routes/**/*.ts'],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: { '@typescript-eslint/no-unnecessary-type-assertion': 'error' }
  }
]
