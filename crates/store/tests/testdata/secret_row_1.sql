-- Sealed by the first version that had secrets, under a key of 32 bytes 42. Never edited.
INSERT INTO secret (repo, environment, name, hosts, added_as, revision, key_id, nonce, sealed, created_us, updated_us)
VALUES ('https://git.example/team/project.git', 'ci', 'KEPT', '["git.example","registry.example:8443"]', 'basic:robot', 1, '45e243006d8b04ba',
        x'CE5E41AED16231A7317B0259', x'233C1FE66C3EC62F07B867BEEB99A8087B4442DDB6532A2D845FB257DB', 1790000001000000, 1790000001000000);
