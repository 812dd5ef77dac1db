#include "hooks/torch_adaptor.h"

const char* ebbtide_torch_version(void) { return EBBTIDE_TORCH_VERSION_TEXT; }
