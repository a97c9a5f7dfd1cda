-- Holder ?3 refreshes the token of provider ?1 and account ?2 no more. By primary key.
update token
set
  holder = null
where provider = ?1
  and account = ?2
  and holder = ?3
